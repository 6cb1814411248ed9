use super::*;

fn read(text: &str) -> (HarSummary, Vec<Exchange>) {
    let mut seen = Vec::new();
    let summary =
        read_har(text.as_bytes(), ReaderConfig::offline(), &mut |e| seen.push(e)).unwrap();
    (summary, seen)
}

#[test]
fn minimal_entry() {
    let (summary, seen) = read(
        r#"{"log":{"entries":[{"startedDateTime":"2024-02-29T01:00:00.5+01:00","time":1.5,
        "request":{"method":"GET","url":"https://a.example/x?y=1#z"},
        "response":{"status":200,"content":{"text":"aGk=","encoding":"base64"}}}]}}"#,
    );
    assert_eq!(summary.services, ["https://a.example:443"]);
    let exchange = &seen[0];
    assert_eq!(
        (exchange.started, exchange.ended),
        (1_709_164_800_500_000_000, 1_709_164_800_501_500_000)
    );
    assert_eq!(exchange.request.as_ref().unwrap().target(), b"/x?y=1");
    assert_eq!(exchange.response.as_ref().unwrap().message.body.content, "hi");
    assert!(exchange.is_complete());
}

#[test]
fn blocked_request_has_no_response() {
    let (_, seen) = read(
        r#"{"log":{"entries":[{"request":{"method":"POST","url":"http://h:81",
        "postData":{"params":[{"name":"a b","value":"c&d"}]}},"response":{"status":0}}]}}"#,
    );
    assert!(seen[0].response.is_none());
    assert_eq!(seen[0].request.as_ref().unwrap().message.body.content, "a+b=c%26d");
}

#[test]
fn unusable_entry_is_counted() {
    let (summary, seen) = read(r#"{"log":{"entries":[{"request":{"url":"data:,x"}},7]}}"#);
    assert_eq!((summary.entries, summary.skipped, seen.len()), (2, 2, 0));
}

#[test]
fn not_a_har() {
    let error = read_har(&b"{}"[..], ReaderConfig::offline(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("HAR"));
}
