use std::io::Write;

use flate2::{Compression, write};

use super::*;

fn text() -> Vec<u8> {
    (0..20_000_u32).flat_map(|i| format!("{{\"id\":{i}}},").into_bytes()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = write::GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = write::DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn offline(codings: &[Coding], input: &[u8]) -> Decoded {
    decode(codings, input, true, &ReaderConfig::offline())
}

#[test]
fn gzip_round_trip() {
    let decoded = offline(&[Coding::Gzip], &gzip(&text()));
    assert_eq!((decoded.content, decoded.partial), (text(), None));
}

#[test]
fn gzip_of_two_members() {
    let input = [gzip(b"one "), gzip(b"two")].concat();
    assert_eq!(offline(&[Coding::Gzip], &input).content, b"one two");
}

#[test]
fn deflate_is_zlib() {
    assert_eq!(offline(&[Coding::Deflate], &zlib(&text())).content, text());
}

#[test]
fn deflate_is_sometimes_raw() {
    assert_eq!(offline(&[Coding::Deflate], &raw_deflate(&text())).content, text());
}

#[test]
fn zstd_of_two_frames_and_one_to_skip() {
    let skipped = [0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let input = [zstd(b"one "), skipped.to_vec(), zstd(b"two")].concat();
    let decoded = offline(&[Coding::Zstd], &input);
    assert_eq!((decoded.content, decoded.partial), (b"one two".to_vec(), None));
}

#[test]
fn brotli_of_hello() {
    // An uncompressed meta-block, then the empty last one (RFC 7932 section 9.2).
    let input = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
    assert_eq!(offline(&[Coding::Brotli], &input).content, b"hello");
}

#[test]
fn stacked_codings_come_off_last_first() {
    let input = gzip(&zstd(&text()));
    assert_eq!(offline(&[Coding::Zstd, Coding::Gzip], &input).content, text());
}

#[test]
fn prefix_decodes_as_far_as_it_goes() {
    let whole = gzip(&text());
    let decoded =
        decode(&[Coding::Gzip], &whole[..whole.len() / 2], false, &ReaderConfig::offline());
    assert!(decoded.content.len() > 1000);
    assert!(text().starts_with(&decoded.content));
    assert_eq!((decoded.partial, decoded.sha256), (None, None));
}

#[test]
fn cut_body_that_claims_to_be_whole_is_broken() {
    let whole = gzip(&text());
    let decoded = offline(&[Coding::Gzip], &whole[..whole.len() / 2]);
    assert_eq!(decoded.partial, Some(Partial::Undecodable));
}

#[test]
fn bomb_is_refused_by_its_ratio() {
    let bomb = gzip(&vec![0; 32 << 20]);
    let decoded = offline(&[Coding::Gzip], &bomb);
    assert_eq!(decoded.partial, Some(Partial::Undecodable));
    assert!(decoded.length < 12 << 20);
}

#[test]
fn short_text_may_repeat_itself() {
    let text = vec![b'a'; 1 << 20];
    assert_eq!(offline(&[Coding::Gzip], &gzip(&text)).partial, None);
}

#[test]
fn bomb_within_a_bomb_is_refused() {
    let bomb = gzip(&gzip(&vec![0; 64 << 20]));
    let decoded = offline(&[Coding::Gzip, Coding::Gzip], &bomb);
    assert_eq!(decoded.partial, Some(Partial::Undecodable));
}

#[test]
fn output_beyond_the_limit_is_cut() {
    let config = ReaderConfig { decode_limit: 50_000, ..ReaderConfig::default() };
    let decoded = decode(&[Coding::Gzip], &gzip(&text()), true, &config);
    assert_eq!((decoded.content.len(), decoded.partial), (16 << 10, Some(Partial::Limit)));
    assert!(!decoded.is_whole);
}

#[test]
fn noise_is_undecodable() {
    for coding in [Coding::Gzip, Coding::Zstd, Coding::Deflate, Coding::Unknown] {
        let decoded = offline(&[coding], b"this is not encoded at all");
        assert_eq!(decoded.partial, Some(Partial::Undecodable), "{coding:?}");
    }
}
