//! Plants personal values and secrets in every position, many times over, and looks for them in
//! everything that leaves.

use super::exchange::Build;
use crate::redact::{RedactConfig, Redactor};

/// A small generator, so that failures repeat.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
    fn of(&mut self, alphabet: &str, length: usize) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..length).map(|_| letters[self.roll(letters.len() as u64) as usize]).collect()
    }
    fn digits(&mut self, length: usize) -> String {
        self.of("0123456789", length)
    }
}

const ALNUM: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

fn luhn(mut number: String) -> String {
    for check in 0..10 {
        let digits: Vec<u8> = format!("{number}{check}").bytes().map(|b| b - b'0').collect();
        if crate::redact::detect::payment::passes_luhn(&digits) {
            number.push_str(&check.to_string());
            return number;
        }
    }
    unreachable!("one of ten digits fits")
}

fn iban(dice: &mut Dice) -> String {
    let account = dice.digits(18);
    let remainder =
        format!("{account}131400").bytes().fold(0u32, |r, b| (r * 10 + u32::from(b - b'0')) % 97);
    format!("DE{:02}{account}", 98 - remainder)
}

fn values() -> Vec<String> {
    let mut dice = Dice(2026);
    let mut values = Vec::new();
    for _ in 0..20 {
        let word = dice.of("abcdefghijklmnopqrstuvwxyz", 9);
        values.push(format!("{word}@{}.example", dice.of("abcdefghijk", 7)));
        values.push(luhn(format!("4{}", dice.digits(14))));
        values.push(iban(&mut dice));
        values.push(format!("+336{}", dice.digits(8)));
        values.push(format!("555-{}-{}", dice.digits(3), dice.digits(4)));
        values.push(format!("{}-45-{}", 100 + dice.roll(500), 1000 + dice.roll(9000)));
        values.push(format!("203.0.{}.{}", dice.roll(256), dice.roll(256)));
        values.push(format!("2001:db8::{:x}:{:x}", 1 + dice.roll(65535), 1 + dice.roll(65535)));
        values.push(format!("AKIA{}", dice.of("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)));
        values.push(format!("ghp_{}", dice.of(ALNUM, 36)));
        values.push(format!(
            "eyJ{}.eyJ{}.{}",
            dice.of(ALNUM, 20),
            dice.of(ALNUM, 30),
            dice.of(ALNUM, 43)
        ));
        values.push(dice.of("0123456789abcdef", 40));
        values.push(dice.of(ALNUM, 32));
        values.push(format!("48.{},2.{}", dice.digits(5), dice.digits(5)));
    }
    values
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }
        })
        .collect()
}

/// The value in every position that an exchange has.
fn exchanges(value: &str) -> Vec<Build> {
    let json = value.to_string();
    let once = encode(value);
    let twice = encode(&once);
    let base = || Build::new("POST", "/things");
    let get = |target: String| Build::new("GET", target);
    vec![
        get(format!("/things/{once}")),
        get(format!("/things/{once}/items")),
        get(format!("/things/{twice}")),
        get(format!("/things/x-{once}.json")),
        get(format!("/things/run:{once}")),
        get(format!("/users/{once}")),
        get(format!("/things?state={once}")),
        get(format!("/things?state={twice}")),
        get(format!("/things?{once}=1")),
        get(format!("/things?filter[{once}]=1")),
        get(format!("http://{once}:pw@localhost/things")),
        get(format!("/things;v={once}#{once}")),
        base().header("X-Status", value),
        base().header("Authorization", format!("Bearer {value}")),
        base().header("Authorization", value),
        base().header("Authorization", format!("{value} abc")),
        base().header("Proxy-Authorization", value),
        base().header("Cookie", format!("state={value}; {value}=1")),
        base().header("X-Api-Key", value),
        base().header("Host", value),
        base().header("Host", format!("{once}.example")),
        base().header("Content-Type", format!("application/{value}")),
        base().json(&format!(r#"{{"state":"{json}"}}"#)),
        base().json(&format!(r#"{{"state":"see {json} there"}}"#)),
        base().json(&format!(r#"{{"{json}":{{"id":1}}}}"#)),
        base().json(&format!(r#"{{"state":["{json}",["{json}"]]}}"#)),
        base().json(&format!(r#"{{"state":"{once}"}}"#)),
        base().json(&format!("\"{json}\"")),
        base().body("application/x-www-form-urlencoded", format!("state={once}&{once}=1")),
        base().body("multipart/form-data; boundary=B", format!(
            "--B\r\nContent-Disposition: form-data; name=\"{value}\"; filename=\"{value}\"\r\nContent-Type: text/{value}\r\n\r\n{value}\r\n--B\r\nContent-Disposition: form-data; name=\"state\"\r\n\r\n{value}\r\n--B--\r\n")),
        base().body("text/plain", value),
        base().body("application/xml", format!("<a>{value}</a>")),
        base().answer(200, "application/json", format!(r#"{{"state":"{json}","{json}":1}}"#)),
        base().answer(404, "application/json", format!(r#"{{"code":"{json}"}}"#)),
        base().answer_header("Location", format!("/things/{once}")),
        base().answer_header("X-Status", value),
        base().answer_header("Set-Cookie", format!("state={value}")),
        // Not a legal name for most of them, which must not matter.
        base().answer_header(value, "1"),
    ]
}

/// No text of the observation holds the value in any spelling.
#[track_caller]
fn is_absent(value: &str, shown: &str, position: usize) {
    let shown = shown.to_lowercase();
    let compact: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    for form in [value, &encode(value), &encode(&encode(value)), &compact] {
        assert!(!shown.contains(&form.to_lowercase()), "{form} in position {position}: {shown}");
    }
}

#[test]
fn planted_values_never_leave() {
    let mut redactor = Redactor::new([7; 16], RedactConfig::default());
    for value in values() {
        for (position, build) in exchanges(&value).into_iter().enumerate() {
            for flow in 0..5 {
                let seen = redactor.observe(&build.clone().flow(flow).make());
                is_absent(&value, &format!("{seen:?}"), position);
            }
        }
    }
}

#[test]
fn values_of_telling_fields_never_leave() {
    let fields = [
        "password",
        "userPassword",
        "secret",
        "client_secret",
        "pin",
        "cvv",
        "ssn",
        "access_token",
        "firstName",
        "last_name",
        "full-name",
        "surname",
        "street",
        "addressLine1",
        "phone",
        "email",
        "dob",
        "dateOfBirth",
        "username",
        "login",
        "nick",
        "comment",
        "message",
        "city",
        "vorname",
        "apellido",
        "prenom",
        "mot_de_passe",
        "contrasena",
        "telefon",
        "name",
        "title",
        "postcode",
        "api_key",
        "token",
        "notes",
        "bio",
        "displayName",
    ];
    let mut redactor = Redactor::new([7; 16], RedactConfig::default());
    for field in fields {
        for value in ["Zorblax", "zorblaxQuux", "zorb-lax9"] {
            for flow in 0..8 {
                let build = Build::new("POST", format!("/things?{field}={value}"))
                    .flow(flow)
                    .header("Cookie", format!("{field}={value}"))
                    .json(&format!(r#"{{"{field}":"{value}","list":[{{"{field}":["{value}"]}}]}}"#))
                    .answer(
                        200,
                        "application/json",
                        format!(r#"{{"data":{{"{field}":"{value}"}}}}"#),
                    );
                let seen = redactor.observe(&build.make());
                assert!(!format!("{seen:?}").to_lowercase().contains("zorb"), "{field}: {seen:?}");
            }
        }
    }
}
