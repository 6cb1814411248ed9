use std::cell::Cell;

use http::HeaderValue;

use super::{context::TRACEPARENT, *};

/// Without an exporter: its queue holds what it is given.
fn tracer(sample_rate: f64, most: usize) -> (Tracer, mpsc::Receiver<Span>) {
    let (queue, spans) = mpsc::channel(most);
    let tracer = Tracer {
        threshold: threshold(sample_rate),
        is_detailed: false,
        queue,
        counts: Arc::default(),
        exporting: Mutex::new(None),
    };
    (tracer, spans)
}

fn random() -> impl Fn() -> u64 {
    let random = crate::proxy::random::Random::default();
    move || random.next()
}

#[test]
fn about_as_many_traces_are_sampled_as_was_asked_for() {
    let (headers, random) = (HeaderMap::new(), random());
    for (rate, range) in [(0.0, 0..=0), (0.25, 2200..=2800), (1.0, 10_000..=10_000)] {
        let (tracer, _spans) = tracer(rate, 1);
        let sampled =
            (0..10_000).filter(|_| tracer.begin(&headers, &random).context.is_sampled).count();
        assert!(range.contains(&sampled), "{rate}: {sampled}");
    }
}

#[test]
fn a_trace_goes_on_where_there_is_one() {
    let (tracer, _spans) = tracer(0.0, 1);
    let mut headers = HeaderMap::new();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.insert(TRACEPARENT, HeaderValue::from_static(parent));
    let context = tracer.begin(&headers, random()).context;
    assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(context.parent, Some(0xb7ad_6b71_6920_3331));
    assert!(context.is_sampled && Some(context.span) != context.parent);
}

#[test]
fn identifiers_are_never_zero() {
    let (tracer, _spans) = tracer(1.0, 1);
    let zero = Cell::new(0_u64);
    let context = tracer.begin(&HeaderMap::new(), || zero.get()).context;
    assert!(context.trace != 0 && context.span != 0);
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    let (tracer, mut spans) = tracer(1.0, 2);
    for _ in 0..5 {
        tracer.end(Span::last());
    }
    let mut text = String::new();
    tracer.render(&mut text);
    assert!(text.contains("stoa_otel_spans_dropped_total{reason=\"queue_full\"} 3"), "{text}");
    assert!(spans.try_recv().is_ok());
}
