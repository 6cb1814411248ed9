use super::*;

const DAY: u64 = 86_400;

fn open(directory: &Path) -> Result<Store, StoreError> {
    Store::open(directory, Limits::default())
}

fn entry(service: &str, bucket: u64, part: &str, held_since: u64) -> Entry {
    let encoded = ServiceKnowledge::default().encode();
    Entry { service: service.to_owned(), bucket, part: part.to_owned(), held_since, encoded }
}

fn keys(store: &Store) -> Vec<(String, u64, String)> {
    let mut keys = Vec::new();
    store
        .visit(|service, bucket, part, _| {
            keys.push((service.to_owned(), bucket, part.to_owned()));
            Ok(())
        })
        .unwrap();
    keys
}

#[test]
fn only_the_owner_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a/state");
    open(&state).unwrap();
    secret::load_or_make(&state).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("knowledge.redb")), 0o600);
    assert_eq!(mode(&state.join("secret.key")), 0o600);
}

#[test]
fn the_secret_stays_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let first = secret::load_or_make(dir.path()).unwrap();
    assert_ne!(first, [0; 16]);
    assert_eq!(secret::load_or_make(dir.path()).unwrap(), first);
    fs::write(dir.path().join("secret.key"), b"short").unwrap();
    let error = secret::load_or_make(dir.path()).unwrap_err().to_string();
    assert!(error.contains("16 bytes"), "{error}");
}

#[test]
fn a_second_agent_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::InUse { .. })));
}

#[test]
fn damage_is_an_error_with_a_remedy() {
    let noise: Vec<u8> = (0..50_000_u32).map(|i| (i * 7 % 253) as u8).collect();
    for bytes in [b"not a database".to_vec(), noise] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("knowledge.redb"), &bytes).unwrap();
        let error = open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("damaged") && error.contains("mv "), "{error}");
    }
}

#[test]
fn a_store_cut_short_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let entries: Vec<_> = (0..2000).map(|n| entry("api", n, "run", DAY)).collect();
    store.write(&entries).unwrap();
    drop(store);
    let path = dir.path().join("knowledge.redb");
    let whole = fs::read(&path).unwrap();
    for (numerator, denominator) in [(1, 2), (9, 10), (1, 100)] {
        fs::write(&path, &whole[..whole.len() * numerator / denominator]).unwrap();
        assert!(open(dir.path()).is_err());
    }
    // Overwritten in the middle: an error, or pages that nobody uses.
    let mut holed = whole.clone();
    let middle = holed.len() / 3;
    holed[middle..middle + 40_000].fill(0xa5);
    fs::write(&path, &holed).unwrap();
    let _ = open(dir.path()).and_then(|store| store.exchanges_by_service(|_| false));
}

#[test]
fn what_is_held_too_long_is_purged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    store.write(&[entry("old", DAY, "run", DAY), entry("new", DAY, "run", 3 * DAY)]).unwrap();
    assert_eq!(store.purge_held_before(2 * DAY).unwrap(), 1);
    assert_eq!(keys(&store), [("new".to_owned(), DAY, "run".to_owned())]);
}

#[test]
fn parts_of_earlier_runs_are_combined_and_keep_the_older_age() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    store
        .write(&[
            entry("api", DAY, "run-1", 5 * DAY),
            entry("api", DAY, "run-2", 2 * DAY),
            entry("api", 2 * DAY, "run-2", 5 * DAY),
        ])
        .unwrap();
    drop(store);
    let store = open(dir.path()).unwrap();
    let key = |bucket, part: &str| ("api".to_owned(), bucket, part.to_owned());
    assert_eq!(keys(&store), [key(DAY, MERGED), key(2 * DAY, "run-2")]);
    assert_eq!(store.purge_held_before(3 * DAY).unwrap(), 1);
}
