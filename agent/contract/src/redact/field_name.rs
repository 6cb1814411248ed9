//! What the name of a field says about its value: `email`, `firstName`, `card_cvv`, `mot_de_passe`.

use super::person_field;
use crate::observation::Personal;

/// What may become of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Nothing speaks against an enumeration.
    Open,
    /// Of no personal class by itself, yet never text: places, titles, file names.
    Quiet,
    /// The name of a thing or of a person; what is around it tells. Never text.
    Name,
    Personal(Personal),
}

impl Field {
    pub fn personal(self) -> Option<Personal> {
        if let Self::Personal(class) = self { Some(class) } else { None }
    }
}

/// Credentials by name win over what the value looks like.
pub(super) fn is_credential(class: Personal) -> bool {
    use Personal::{ApiKey, Basic, Bearer, Cookie, Password, PrivateKey, Secret};
    matches!(class, Password | Secret | ApiKey | Bearer | Basic | Cookie | PrivateKey)
}

/// `words`: the lower-case words of the name.
pub(super) fn classify(words: &[String]) -> Field {
    use Personal::{
        Address, ApiKey, BirthDate, Card, Coordinates, Email, FreeText, Iban, Ipv4, MacAddress,
        Name, NationalId, Password, Phone, Secret, Ssn, Username,
    };
    let joined = words.concat();
    let has = |any: &[&str]| words.iter().any(|w| any.contains(&w.as_str()));
    let is = |any: &[&str]| any.contains(&joined.as_str());
    let ends = |any: &[&str]| any.iter().any(|e| joined.ends_with(e));
    // Facts about the thing rather than the thing: `email_verified`, `token_type`.
    let last = words.last().map_or("", String::as_str);
    if matches!(
        last,
        "type"
            | "count"
            | "status"
            | "enabled"
            | "disabled"
            | "verified"
            | "confirmed"
            | "required"
            | "length"
            | "limit"
            | "format"
            | "expires"
            | "expiry"
            | "expiration"
            | "ttl"
            | "kind"
            | "policy"
            | "at"
            | "attempts"
            | "valid"
            | "supported"
            | "allowed"
            | "total"
            | "size"
    ) && words.len() > 1
    {
        return Field::Open;
    }
    if has(&[
        "password",
        "passwd",
        "pwd",
        "passphrase",
        "passcode",
        "pin",
        "cvv",
        "cvc",
        "cvv2",
        "mdp",
        "passwort",
        "kennwort",
        "contrasena",
        "contraseña",
        "senha",
        "wachtwoord",
        "otp",
        "totp",
        "pass",
    ]) || ends(&["password", "passwd", "motdepasse", "passphrase", "securitycode"])
    {
        return Field::Personal(Password);
    }
    if ends(&[
        "apikey",
        "accesskey",
        "secretkey",
        "privatekey",
        "subscriptionkey",
        "authkey",
        "appkey",
        "applicationkey",
        "userkey",
        "clientkey",
        "projectkey",
        "functionskey",
        "functionkey",
        "masterkey",
        "serverkey",
        "rapidapikey",
        "licensekey",
        "accesskeyid",
        "consumerkey",
        "signingkey",
        "encryptionkey",
    ]) {
        return Field::Personal(ApiKey);
    }
    if has(&[
        "secret",
        "secrets",
        "signature",
        "sig",
        "jwt",
        "bearer",
        "credential",
        "credentials",
        "authorization",
        "hmac",
        "nonce",
        "csrf",
        "xsrf",
    ]) || ((has(&["token", "tokens", "session", "auth"]) || ends(&["token", "sessionid"]))
        && (last != "id" || has(&["session"]))
        && !has(&["max", "min", "num", "usage"]))
        || is(&["sid", "sessid"])
    {
        return Field::Personal(Secret);
    }
    if is(&["ssn", "socialsecuritynumber", "socialsecurity", "itin", "sin", "taxpayerid"])
        || has(&["ssn"])
    {
        return Field::Personal(Ssn);
    }
    if has(&[
        "nir",
        "nino",
        "dni",
        "nie",
        "bsn",
        "passport",
        "cpf",
        "curp",
        "aadhaar",
        "pesel",
        "nif",
        "codicefiscale",
    ]) || ends(&[
        "nationalid",
        "nationalinsurancenumber",
        "taxid",
        "idcardnumber",
        "codicefiscale",
        "steueridentifikationsnummer",
        "steuerid",
        "securitesociale",
        "driverslicense",
        "driverlicense",
        "passportnumber",
        "identitynumber",
        "personnummer",
    ]) {
        return Field::Personal(NationalId);
    }
    if has(&["iban", "bic"]) || ends(&["accountnumber", "routingnumber", "sortcode", "bankaccount"])
    {
        return Field::Personal(Iban);
    }
    if ends(&["cardnumber", "creditcard", "cardno", "ccnumber", "kartennummer"]) || is(&["pan"]) {
        return Field::Personal(Card);
    }
    if has(&["email", "emails", "courriel", "correo"]) || ends(&["email", "mailaddress", "mail"]) {
        return Field::Personal(Email);
    }
    if has(&[
        "phone",
        "phones",
        "telephone",
        "telefon",
        "telefono",
        "teléfono",
        "telefone",
        "mobile",
        "msisdn",
        "fax",
        "tel",
        "cellphone",
        "handy",
        "téléphone",
        "telefoonnummer",
    ]) || ends(&["phone", "phonenumber", "mobilenumber"])
    {
        return Field::Personal(Phone);
    }
    if has(&[
        "dob",
        "birthday",
        "birthdate",
        "birth",
        "geburtsdatum",
        "naissance",
        "nacimiento",
        "nascita",
        "nascimento",
        "geboortedatum",
        "born",
    ]) {
        return Field::Personal(BirthDate);
    }
    if has(&[
        "latitude",
        "longitude",
        "lat",
        "lng",
        "lon",
        "latlng",
        "latlon",
        "geolocation",
        "coordinates",
        "coordinate",
        "geo",
    ]) {
        return Field::Personal(Coordinates);
    }
    if has(&["mac"]) && words.len() <= 2 && (last == "mac" || last == "address") {
        return Field::Personal(MacAddress);
    }
    if (has(&["ip", "ipv4", "ipv6"]) || ends(&["ipaddress", "remoteaddr"])) && words.len() <= 3 {
        return Field::Personal(Ipv4);
    }
    if is(&["fname", "lname", "mname"])
        || has(&[
            "firstname",
            "lastname",
            "surname",
            "fullname",
            "middlename",
            "forename",
            "maiden",
            "vorname",
            "nachname",
            "familienname",
            "prenom",
            "prénom",
            "apellido",
            "apellidos",
            "cognome",
            "sobrenome",
            "voornaam",
            "achternaam",
            "cardholder",
            "patronymic",
            "initials",
        ])
        || ends(&[
            "firstname",
            "lastname",
            "fullname",
            "givenname",
            "familyname",
            "middlename",
            "surname",
            "realname",
            "legalname",
            "displayname",
            "personname",
            "holdername",
            "contactname",
            "customername",
            "patientname",
            "employeename",
            "ownername",
            "authorname",
            "recipientname",
            "sendername",
            "nomdefamille",
            "mothername",
            "fathername",
            "cardholdername",
            "preferredname",
        ])
    {
        return Field::Personal(Name);
    }
    if has(&[
        "username",
        "login",
        "nick",
        "nickname",
        "handle",
        "benutzername",
        "utilisateur",
        "usuario",
        "utente",
        "gebruikersnaam",
        "screenname",
        "upn",
    ]) || ends(&["username", "loginname", "userlogin", "screenname"])
        || is(&[
            "user",
            "author",
            "owner",
            "assignee",
            "customer",
            "createdby",
            "updatedby",
            "modifiedby",
            "assignedto",
            "reporter",
            "userid",
            "sender",
            "recipient",
            "reviewer",
            "member",
            "employee",
            "patient",
            "manager",
            "friend",
            "followers",
            "contact",
            "uname",
        ])
    {
        return Field::Personal(Username);
    }
    if has(&[
        "street",
        "strasse",
        "straße",
        "rue",
        "calle",
        "indirizzo",
        "endereco",
        "endereço",
        "adresse",
        "direccion",
        "dirección",
        "adres",
        "addr",
        "address",
        "addresses",
        "address1",
        "address2",
        "zip",
        "zipcode",
        "postcode",
        "postalcode",
        "plz",
        "cep",
    ]) || ends(&["address", "addressline", "streetname", "housenumber", "postalcode", "zipcode"])
        || is(&[
            "city",
            "town",
            "village",
            "suburb",
            "county",
            "district",
            "ville",
            "stadt",
            "ort",
            "ciudad",
            "citta",
            "cidade",
            "place",
            "birthplace",
            "line",
            "hometown",
        ])
    {
        return Field::Personal(Address);
    }
    if has(&[
        "comment",
        "comments",
        "message",
        "messages",
        "description",
        "bio",
        "biography",
        "remark",
        "remarks",
        "note",
        "notes",
        "feedback",
        "body",
        "text",
        "content",
        "caption",
        "summary",
        "title",
        "subject",
        "about",
        "headline",
        "details",
        "detail",
        "query",
        "prompt",
        "question",
        "answer",
        "commentaire",
        "kommentar",
        "nachricht",
        "mensaje",
        "messaggio",
        "beschreibung",
        "abstract",
        "diagnosis",
        "symptoms",
        "medication",
        "allergies",
        "occupation",
        "hobbies",
    ]) && !matches!(
        last,
        "id" | "ids" | "key" | "code" | "lang" | "language" | "url" | "uri" | "href"
    ) {
        return Field::Personal(FreeText);
    }
    if has(&["name", "names", "nom", "nombre", "nome", "naam"]) {
        return Field::Name;
    }
    if is(&[
        "q",
        "search",
        "keyword",
        "keywords",
        "term",
        "terms",
        "s",
        "filter",
        "country",
        "location",
        "hometown",
        "gender",
        "sex",
        "race",
        "ethnicity",
        "religion",
        "nationality",
        "salary",
        "income",
        "age",
        "hostname",
        "host",
        "filename",
        "path",
        "file",
        "label",
        "slug",
        "artist",
        "actor",
        "director",
        "singer",
    ]) {
        return Field::Quiet;
    }
    if is_identifier(words, last) || person_field::names_a_person(words, last) {
        return Field::Quiet;
    }
    Field::Open
}

/// Values of such a field tell one thing from all others of its kind.
fn is_identifier(words: &[String], last: &str) -> bool {
    matches!(
        last,
        "id" | "ids"
            | "uuid"
            | "guid"
            | "uid"
            | "oid"
            | "pk"
            | "ref"
            | "refs"
            | "reference"
            | "key"
            | "keys"
            | "handle"
            | "sku"
            | "serial"
            | "hash"
            | "sha"
            | "sha1"
            | "sha256"
            | "md5"
            | "digest"
            | "checksum"
            | "fingerprint"
            | "etag"
            | "identifier"
            | "number"
            | "seed"
            | "salt"
            | "invite"
            | "voucher"
            | "coupon"
    ) || (last == "field" && words.iter().any(|w| w == "id"))
}

/// Values of such a field name a thing, so a later path may hold them.
pub(super) fn names_a_thing(words: &[String]) -> bool {
    let last = words.last().map_or("", String::as_str);
    let before = words.iter().rev().nth(1).map_or("", String::as_str);
    let is_key = |w: &str| {
        matches!(
            w,
            "id" | "ids"
                | "uuid"
                | "guid"
                | "key"
                | "slug"
                | "code"
                | "name"
                | "number"
                | "no"
                | "ref"
                | "reference"
                | "handle"
                | "login"
                | "username"
                | "sku"
                | "path"
                | "href"
                | "url"
                | "identifier"
                | "oid"
                | "uid"
                | "pk"
                | "token"
                | "tag"
                | "version"
                | "sha"
        )
    };
    is_key(last) || (last == "field" && is_key(before))
}
