//! Content negotiation by `Accept` (RFC 9110 section 12.5.1).

/// The offer that the client likes best; of equals, the one offered first. `None` where it
/// accepts none of them. Offers are media types in lower case, without parameters.
pub fn choose<'a>(accept: Option<&str>, offers: &[&'a str]) -> Option<&'a str> {
    let Some(accept) = accept.filter(|a| !a.trim().is_empty()) else {
        return offers.first().copied();
    };
    let ranges: Vec<Range> = accept.split(',').take(64).filter_map(parse_range).collect();
    if ranges.is_empty() {
        return offers.first().copied();
    }
    let mut best: Option<(u16, &'a str)> = None;
    for offer in offers {
        let quality = quality_of(offer, &ranges);
        if quality > best.map_or(0, |(q, _)| q) {
            best = Some((quality, offer));
        }
    }
    best.map(|(_, offer)| offer)
}

struct Range {
    /// `type/subtype`, `type/*` or `*/*`.
    media_type: String,
    /// In thousandths.
    quality: u16,
}

fn parse_range(text: &str) -> Option<Range> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next()?.to_lowercase();
    let (kind, subtype) = media_type.split_once('/')?;
    if kind.is_empty() || subtype.is_empty() || (kind == "*" && subtype != "*") {
        return None;
    }
    let mut quality = 1000;
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        if name.trim().eq_ignore_ascii_case("q") {
            quality = parse_quality(value.trim())?;
        }
    }
    Some(Range { media_type, quality })
}

/// `qvalue` of RFC 9110 section 12.4.2, in thousandths.
fn parse_quality(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// The most specific range that matches decides.
fn quality_of(offer: &str, ranges: &[Range]) -> u16 {
    let kind = offer.split('/').next().unwrap_or("");
    let specificity = |range: &Range| {
        if range.media_type == offer {
            Some(3)
        } else if range.media_type.strip_suffix("/*") == Some(kind) {
            Some(2)
        } else {
            (range.media_type == "*/*").then_some(1)
        }
    };
    ranges
        .iter()
        .filter_map(|range| Some((specificity(range)?, range.quality)))
        .max()
        .map_or(0, |(_, quality)| quality)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERS: &[&str] = &["application/yaml", "application/json", "text/plain"];

    #[test]
    fn the_client_decides_and_the_order_breaks_ties() {
        for (accept, chosen) in [
            (None, Some("application/yaml")),
            (Some("*/*"), Some("application/yaml")),
            (Some("application/json"), Some("application/json")),
            (Some("APPLICATION/JSON; charset=utf-8"), Some("application/json")),
            (Some("application/yaml;q=0.5, application/json;q=0.9"), Some("application/json")),
            (Some("text/*"), Some("text/plain")),
            (Some("application/*;q=0.3, text/plain;q=0.2"), Some("application/yaml")),
            // The exact range wins over the wider one, even with a lower quality.
            (Some("*/*, application/yaml;q=0"), Some("application/json")),
            (Some("image/png"), None),
            (Some("application/json;q=0"), None),
            (Some("application/json;q=0.000"), None),
            (Some("application/json;q=2, text/plain"), Some("text/plain")),
        ] {
            assert_eq!(choose(accept, OFFERS), chosen, "{accept:?}");
        }
    }
}
