//! Which fields hold persons, by their names.

/// Values of such a field name somebody, in whatever way: `author`, `assignedTo`, `created_by`.
pub(super) fn names_a_person(words: &[String], last: &str) -> bool {
    let before = words.iter().rev().nth(1).map_or("", String::as_str);
    is_person(words)
        || match last {
            // Orders are by a field, not by a person.
            "by" => !matches!(
                before,
                "sort" | "sorted" | "order" | "ordered" | "group" | "grouped" | "filter"
            ),
            "to" | "from" => {
                matches!(before, "" | "assigned" | "sent" | "shared" | "delegated" | "reply")
            }
            _ => matches!(
                last,
                "reviewer"
                    | "reviewers"
                    | "reporter"
                    | "requester"
                    | "requestor"
                    | "approver"
                    | "approvers"
                    | "editor"
                    | "editors"
                    | "maintainer"
                    | "maintainers"
                    | "participant"
                    | "operator"
                    | "agent"
                    | "actor"
                    | "subscriber"
                    | "subscribers"
                    | "supervisor"
                    | "organizer"
                    | "follower"
                    | "followers"
                    | "leader"
                    | "lead"
                    | "winner"
                    | "player"
                    | "players"
                    | "worker"
                    | "workers"
                    | "staff"
                    | "doctor"
                    | "practitioner"
                    | "host"
                    | "cc"
                    | "bcc"
                    | "recipients"
                    | "senders"
                    | "who"
                    | "whom"
                    | "tenant"
                    | "holder"
                    | "beneficiary"
                    | "payer"
                    | "payee"
                    | "signer"
                    | "signatory"
                    | "caller"
                    | "committer"
                    | "uploader"
                    | "submitter"
                    | "initiator"
                    | "collaborator"
                    | "collaborators"
                    | "accounts"
                    | "students"
                    | "teachers"
                    | "buyers"
                    | "sellers"
                    | "managers"
                    | "creators"
                    | "candidates"
                    | "applicants"
                    | "responsible"
                    | "mentions"
                    | "mention"
            ),
        }
}

/// Names of persons, one or many, whether they stand before a segment of a path or over an object.
const PERSONS: [&str; 43] = [
    "account",
    "applicant",
    "attendee",
    "attendees",
    "author",
    "authors",
    "buyer",
    "candidate",
    "client",
    "clients",
    "contact",
    "contacts",
    "customer",
    "customers",
    "driver",
    "drivers",
    "employee",
    "employees",
    "friend",
    "friends",
    "guest",
    "guests",
    "member",
    "members",
    "owner",
    "owners",
    "participants",
    "passenger",
    "passengers",
    "patient",
    "patients",
    "people",
    "person",
    "persons",
    "profile",
    "profiles",
    "recipient",
    "seller",
    "student",
    "students",
    "teacher",
    "user",
    "users",
];

/// As above, of objects only: what follows them in a path is a thing of the person's.
const OBJECTS: [&str; 8] =
    ["assignee", "assignees", "billing", "creator", "manager", "me", "sender", "shipping"];

/// As above, of paths only: further collections, and doors that persons pass, behind which
/// somebody's name or password stands.
const COLLECTIONS: [&str; 42] = [
    "accounts",
    "applicants",
    "auth",
    "buyers",
    "candidates",
    "citizen",
    "citizens",
    "clientes",
    "collaborator",
    "collaborators",
    "doctor",
    "doctors",
    "email",
    "emails",
    "follower",
    "followers",
    "kunden",
    "lead",
    "leads",
    "login",
    "nutzer",
    "participant",
    "passwd",
    "password",
    "phone",
    "phones",
    "practitioner",
    "practitioners",
    "recipients",
    "sellers",
    "staff",
    "subscriber",
    "subscribers",
    "teachers",
    "tenant",
    "username",
    "usernames",
    "usuarios",
    "utenti",
    "utilisateurs",
    "worker",
    "workers",
];

/// The object under this key describes a person.
pub(super) fn is_person(words: &[String]) -> bool {
    let last = words.last().map_or("", String::as_str);
    PERSONS.contains(&last) || OBJECTS.contains(&last)
}

/// The segment after one of these names somebody, or is somebody's password: `users/kim`, and
/// `by-name/kim`.
pub(super) fn is_person_collection(words: &[String]) -> bool {
    let last = words.last().map_or("", String::as_str);
    PERSONS.contains(&last)
        || COLLECTIONS.contains(&last)
        || matches!(words, [.., by, _] if by == "by" && BY.contains(&last))
}

/// By what persons are looked up.
const BY: [&str; 9] =
    ["name", "user", "username", "login", "handle", "nickname", "surname", "lastname", "firstname"];
