//! What each detector finds and what it leaves alone.

use crate::{observation::Personal, redact::detect::detect_str};

#[track_caller]
fn finds(class: Personal, texts: &[&str]) {
    for text in texts {
        assert_eq!(detect_str(text), Some(class), "{text}");
    }
}

#[track_caller]
fn leaves(texts: &[&str]) {
    for text in texts {
        assert_eq!(detect_str(text), None, "{text}");
    }
}

#[test]
fn finds_mail_addresses_plain_embedded_and_encoded() {
    finds(
        Personal::Email,
        &[
            "jean.dupont@example.com",
            "write to a+b@c.io, please",
            "jean%40example.com",
            "jean%2540example.com",
            "Jean <jean@sub.example.co.uk>",
            "user@münchen.de",
        ],
    );
    leaves(&["@mentions", "a@b", "user at example.com", "@scope/package", "price@10.99"]);
}

#[test]
fn finds_cards_with_a_valid_luhn_digit_only() {
    finds(
        Personal::Card,
        &[
            "4111111111111111",
            "4111 1111 1111 1111",
            "5500-0000-0000-0004",
            "378282246310005",
            "6011111111111117",
            "3530111333300000",
            "30569309025904",
            "card 4242424242424242 exp 12/27",
            "card%204242%204242%204242%204242",
        ],
    );
    leaves(&[
        "4111111111111112",
        "1234567890123456",
        "1700000000000",
        "0000000000000000",
        "9999999999999995",
    ]);
}

#[test]
fn finds_ibans_with_a_valid_checksum_only() {
    finds(
        Personal::Iban,
        &[
            "DE89370400440532013000",
            "FR14 2004 1010 0505 0001 3M02 606",
            "gb82west12345698765432",
            "NL91-ABNA-0417-1643-00",
        ],
    );
    leaves(&["DE89370400440532013001", "GB82WEST12345698765433", "AB12CDEFGHIJKLMNOP"]);
}

#[test]
fn finds_national_identifiers_by_their_checksums() {
    finds(Personal::Ssn, &["123-45-6789", "ssn 123 45 6789", "912-70-1234"]);
    finds(
        Personal::NationalId,
        &[
            "255081416802538",
            "2 55 08 14 168 025 38",
            "QQ123456C".replace("QQ", "AB").as_str(),
            "AB 12 34 56 C",
            "RSSMRA85T10A562S",
            "12345678Z",
            "X1234567L",
            "1112.22.333",
            "86095742719",
        ],
    );
    // A wrong check letter leaves a random token.
    finds(Personal::Secret, &["RSSMRA85T10A562T"]);
    leaves(&[
        "000-12-3456",
        "666-12-3456",
        "123-00-4567",
        "123-45-0000",
        "255081416802539",
        "12345678A",
        "DF123456A",
        "86095742718",
        "1112.22.334",
    ]);
}

#[test]
fn finds_telephone_numbers_but_not_identifiers() {
    finds(
        Personal::Phone,
        &[
            "+33612345678",
            "+1 (555) 123-4567",
            "(555) 123-4567",
            "555-123-4567",
            "555.123.4567",
            "06 12 34 56 78",
            "0612345678",
            "020 7946 0958",
            "call +49 30 901820 now",
            "%2B33612345678",
        ],
    );
    leaves(&[
        "5551234567",
        "1234567890",
        "20240115",
        "2024-01-15",
        "2024-01-15T10:20:30Z",
        "1700000000",
        "10.5.3",
        "123456789012",
    ]);
}

#[test]
fn finds_network_addresses() {
    finds(Personal::Ipv4, &["192.168.1.1", "from 10.0.0.1:8080", "203.0.113.9"]);
    finds(Personal::Ipv6, &["2001:db8::1", "fe80::1ff:fe23:4567:890a", "[2001:db8::1]:443"]);
    finds(Personal::MacAddress, &["00:1A:2b:3c:4d:5e", "00-1a-2b-3c-4d-5e"]);
    leaves(&["1.2.3", "256.1.1.1", "12:30:45", "a::b", "std::fmt::Debug", "10:20"]);
}

#[test]
fn finds_coordinates_side_by_side() {
    finds(Personal::Coordinates, &["48.8566,2.3522", "-33.8688, 151.2093", "geo:48.856,2.352"]);
    leaves(&["1.234", "1.5,2.5", "99.123,200.123"]);
}

#[test]
fn finds_credentials_by_shape() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";
    finds(Personal::Jwt, &[jwt, &format!("token={jwt}")]);
    finds(
        Personal::CloudKey,
        &[
            "AKIAIOSFODNN7EXAMPLE",
            "key AKIAIOSFODNN7EXAMPLE",
            "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        ],
    );
    finds(
        Personal::ApiKey,
        &[
            "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "xoxb-123456789012-abcdefABCDEF",
            "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
        ],
    );
    finds(
        Personal::Secret,
        &[
            "d41d8cd98f00b204e9800998ecf8427e",
            "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
            "q8Zr2Lk9Xw4Tn7Vb1Yc5",
            "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
        ],
    );
    finds(Personal::PrivateKey, &["-----BEGIN RSA PRIVATE KEY-----\nMIIE"]);
    leaves(&[
        "550e8400-e29b-41d4-a716-446655440000",
        "507f1f77bcf86cd799439011",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "order-line-items-summary",
        "createdByOrganizationMember",
        "application/vnd.example.v2",
        "ListOfAllTheThingsThatWeHave",
        "PAYMENT_METHOD_NOT_SUPPORTED",
    ]);
}
