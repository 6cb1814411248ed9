//! A latitude and a longitude side by side: `48.8566,2.3522`.

/// Two decimals of at least three places, within range, joined by a comma, semicolon or blank.
pub(in crate::redact) fn contains(bytes: &[u8]) -> bool {
    let mut previous: Option<f64> = None;
    for piece in
        bytes.split(|b| matches!(b, b',' | b';' | b' ' | b'(' | b')' | b'[' | b']' | b'|' | b'/'))
    {
        if piece.is_empty() {
            continue;
        }
        let piece = piece.strip_prefix(b"geo:").unwrap_or(piece);
        let degrees = parse_degrees(piece);
        if let (Some(a), Some(b)) = (previous, degrees)
            && ((a.abs() <= 90.0 && b.abs() <= 180.0) || (a.abs() <= 180.0 && b.abs() <= 90.0))
        {
            return true;
        }
        previous = degrees;
    }
    false
}

fn parse_degrees(piece: &[u8]) -> Option<f64> {
    if piece.len() > 24 {
        return None;
    }
    let text = std::str::from_utf8(piece).ok()?;
    let (_, places) = text.split_once('.')?;
    if places.len() < 3 || !places.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}
