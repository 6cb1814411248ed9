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

/// The object under this key describes a person.
pub(super) fn is_person(words: &[String]) -> bool {
    words.last().is_some_and(|last| {
        matches!(
            last.as_str(),
            "user"
                | "users"
                | "customer"
                | "customers"
                | "patient"
                | "patients"
                | "member"
                | "members"
                | "person"
                | "people"
                | "persons"
                | "employee"
                | "employees"
                | "contact"
                | "contacts"
                | "profile"
                | "profiles"
                | "author"
                | "authors"
                | "owner"
                | "owners"
                | "assignee"
                | "assignees"
                | "student"
                | "students"
                | "teacher"
                | "driver"
                | "drivers"
                | "guest"
                | "guests"
                | "passenger"
                | "passengers"
                | "recipient"
                | "sender"
                | "billing"
                | "shipping"
                | "buyer"
                | "seller"
                | "candidate"
                | "applicant"
                | "attendee"
                | "attendees"
                | "participants"
                | "friend"
                | "friends"
                | "creator"
                | "manager"
                | "client"
                | "clients"
                | "account"
                | "me"
        )
    })
}
