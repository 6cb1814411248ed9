use super::*;

fn request(text: &str) -> Result<Option<RequestHead>, HeadError> {
    take_request(&mut BytesMut::from(text), &mut 0)
}

#[test]
fn a_head_is_taken_when_it_is_whole_however_it_comes() {
    let text = "\r\nGET /a?b HTTP/1.1\r\nHost: x\r\nX-A:  1 \r\nX-A: 2\r\n\r\nrest";
    let (mut buffer, mut scanned) = (BytesMut::new(), 0);
    for byte in text.bytes().take(text.len() - 5) {
        buffer.extend_from_slice(&[byte]);
        assert!(take_request(&mut buffer, &mut scanned).unwrap().is_none());
    }
    buffer.extend_from_slice(b"\nrest");
    let head = take_request(&mut buffer, &mut scanned).unwrap().unwrap();
    assert_eq!((head.method, head.target.as_ref()), (Method::GET, &b"/a?b"[..]));
    assert_eq!(head.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!((head.length, head.keep_alive), (Length::NONE, true));
    assert_eq!(buffer, "rest");
}

#[test]
fn heads_that_readers_disagree_on_are_refused() {
    use HeadError::{Field, FirstLine, LineEnd};
    for (text, expected) in [
        ("GET / HTTP/1.1\nHost: x\r\n\r\n", LineEnd),
        ("GET / HTTP/1.1\r\nHost: x\n\r\n", LineEnd),
        ("GET / HTTP/1.1\r\nHost: x\r\n\n", LineEnd),
        ("GET / HTTP/1.1\r\nHost: x\rY: 1\r\n\r\n", Field),
        ("GET / HTTP/1.1\rHost: x\r\n\r\n", LineEnd),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", Field),
        ("GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", Field),
        ("GET / HTTP/1.1\r\nHost: x\r\n\tfolded\r\n\r\n", Field),
        ("GET / HTTP/1.1\r\n Host: x\r\n\r\n", Field),
        ("GET / HTTP/1.1\r\nNoColon\r\n\r\n", Field),
        ("GET / HTTP/1.1\r\n: x\r\n\r\n", Field),
        ("GET / HTTP/1.1\r\nA: \0\r\n\r\n", Field),
        ("GET / HTTP/1.1\r\nA(b): 1\r\n\r\n", Field),
        ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", FirstLine),
        ("GET /  HTTP/1.1\r\nHost: x\r\n\r\n", HeadError::FirstLine),
        ("GET /\r\n\r\n", FirstLine),
        ("GET / HTTP/2.0\r\n\r\n", HeadError::Version),
        ("GET / HTTP/1.2\r\n\r\n", HeadError::Version),
        ("GET / http/1.1\r\n\r\n", HeadError::FirstLine),
        ("G@T / HTTP/1.1\r\n\r\n", FirstLine),
        ("GET /a b HTTP/1.1\r\n\r\n", HeadError::FirstLine),
    ] {
        let error = request(text).err();
        assert_eq!(error, Some(expected), "{text:?}");
    }
}

#[test]
fn what_is_too_long_is_refused_before_it_has_all_come() {
    let long = "x".repeat(MOST_HEAD_BYTES);
    let error = request(&format!("GET / HTTP/1.1\r\nA: {long}")).unwrap_err();
    assert_eq!(error, HeadError::TooLong);
    assert_eq!(error.status().as_u16(), 431);
    let many = "A: 1\r\n".repeat(MOST_HEADERS + 1);
    assert_eq!(request(&format!("GET / HTTP/1.1\r\n{many}\r\n")).unwrap_err(), HeadError::TooLong);
    let target = "x".repeat(MOST_TARGET_BYTES);
    let error = request(&format!("GET /{target} HTTP/1.1\r\n\r\n")).unwrap_err();
    assert_eq!(error.status().as_u16(), 414);
}

#[test]
fn connections_last_as_version_and_connection_say() {
    for (text, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", true),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", false),
    ] {
        assert_eq!(request(text).unwrap().unwrap().keep_alive, expected, "{text:?}");
    }
}

#[test]
fn responses_end_by_status_and_method() {
    let length = |text: &str, method: Method| {
        take_response(&mut BytesMut::from(text), &mut 0, &method).map(|h| h.unwrap().length)
    };
    let get = || Method::GET;
    assert_eq!(length("HTTP/1.1 200 OK\r\n\r\n", get()), Ok(Length::UntilClose));
    assert_eq!(length("HTTP/1.1 200\r\n\r\n", get()), Ok(Length::UntilClose));
    assert_eq!(length("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", get()), Ok(Length::Exact(5)));
    assert_eq!(
        length("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Method::HEAD),
        Ok(Length::NONE)
    );
    assert_eq!(length("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", get()), Ok(Length::NONE));
    assert_eq!(
        length("HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n", get()),
        Ok(Length::NONE)
    );
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 99 X\r\n\r\n",
        "HTTP/1.1 999 X\r\n\r\n",
        "HTTP/3.1 200 X\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nA: 1\r\n\r\n",
    ] {
        assert!(length(text, get()).is_err(), "{text:?}");
    }
}

#[test]
fn trailers_carry_nothing_that_others_believe() {
    let text = Bytes::from_static(
        b"X-Sum: 1\r\nContent-Length: 5\r\nX-Forwarded-For: 6.6.6.6\r\nX-User-ID: root\r\nX_User_ID: root\r\n\r\n",
    );
    let trailers = parse_trailers(&text).unwrap();
    assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sum"]);
}

#[test]
fn a_response_begins_with_its_status_line() {
    let mut buffer = BytesMut::from("\r\nHTTP/1.1 200 OK\r\n\r\n");
    let taken = take_response(&mut buffer, &mut 0, &Method::GET);
    assert_eq!(taken.unwrap_err(), HeadError::FirstLine);
}
