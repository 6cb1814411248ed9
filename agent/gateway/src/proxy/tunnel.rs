//! Two streams joined after a change of protocol (WebSocket): bytes pass both ways as they come.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use stoa_policy::{gcra::Rate, moment::Moment};
use tokio::io::AsyncWrite;

use super::{
    counters::RouteCounters,
    stream::Stream,
    timer::Timer,
    websocket::{self, Meter},
};

const BUFFER: usize = 16 << 10;
/// For a client that is told why its connection ends to read it.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

pub struct Tunnel {
    pub upstream: Stream,
    /// What the upstream sent after its 101.
    pub read: BytesMut,
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
    /// How many messages a WebSocket may carry, each way; `None`: what passes is not looked at.
    pub messages: Option<Rate>,
}

/// Bytes that passed, from the client and to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    pub up: u64,
    pub down: u64,
}

#[derive(Default)]
struct Direction {
    buffer: BytesMut,
    is_ended: bool,
    is_over: bool,
    passed: u64,
    meter: Option<Meter>,
    /// It carried too many messages: no more is read.
    is_stopped: bool,
}

impl Direction {
    fn new(buffer: BytesMut, messages: Option<Rate>) -> Self {
        let mut direction = Self { buffer, meter: messages.map(Meter::new), ..Self::default() };
        direction.measure();
        direction
    }

    /// Keeps of what was read just now what comes in time.
    fn measure(&mut self) {
        let Some(meter) = &mut self.meter else { return };
        if let Err(too_many) = meter.read(&self.buffer, Moment::read().monotonic) {
            self.buffer.truncate(too_many.at);
            self.is_stopped = true;
        }
    }

    /// Until nothing is left of what was read.
    fn poll_pass_on(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.buffer.advance(written);
            self.passed += written as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// To the end of the frame that is under way, where a frame of ours may follow.
    fn poll_end_of_frame(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_pass_on(cx, to))?;
            let Some(meter) = self.meter.as_mut().filter(|meter| !meter.is_between_frames()) else {
                return Poll::Ready(Ok(()));
            };
            self.buffer.reserve(BUFFER);
            if ready!(from.poll_fill(cx, &mut self.buffer))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            // Byte by byte, so as to stop before the next frame.
            let now = Moment::read().monotonic;
            let bytes = self.buffer.iter().map(std::slice::from_ref);
            let rest = bytes
                .take_while(|byte| !meter.is_between_frames() && meter.read(byte, now).is_ok())
                .count();
            self.buffer.truncate(rest);
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Poll<io::Result<()>> {
        while !self.is_over {
            ready!(self.poll_pass_on(cx, to))?;
            if self.is_ended {
                // The other direction goes on: a half-closed connection is not closed.
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.is_over = true;
                break;
            }
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
            self.buffer.reserve(BUFFER);
            if self.is_stopped {
                return Poll::Pending;
            }
            self.is_ended = ready!(from.poll_fill(cx, &mut self.buffer))? == 0;
            self.measure();
        }
        Poll::Ready(Ok(()))
    }
}

/// Until both directions have ended, one fails or carries too many messages, or nothing passes for
/// too long.
pub async fn run(
    mut client: Stream,
    read: BytesMut,
    tunnel: Tunnel,
    counters: Option<Arc<RouteCounters>>,
    timer: &mut Timer,
) -> Passed {
    let Tunnel { mut upstream, read: answered, idle, messages } = tunnel;
    let mut up = Direction::new(read, messages);
    let mut down = Direction::new(answered, messages);
    let mut before = 0;
    let mut counted = [0; 2];
    let mut count = |up: &Direction, down: &Direction| {
        let Some(counters) = &counters else { return };
        for ((direction, before), counter) in
            [up, down].iter().zip(&mut counted).zip(&counters.messages)
        {
            let messages = direction.meter.as_ref().map_or(0, |meter| meter.messages);
            counter.add(messages - *before);
            *before = messages;
        }
    };
    timer.set_after(idle);
    poll_fn(|cx| {
        let upward = up.poll(cx, &mut client, &mut upstream);
        let downward = down.poll(cx, &mut upstream, &mut client);
        count(&up, &down);
        if up.is_stopped || down.is_stopped {
            return Poll::Ready(());
        }
        match (upward, downward) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            _ => {}
        }
        if before != up.passed + down.passed {
            before = up.passed + down.passed;
            timer.set_after(idle);
        }
        timer.poll(cx).map(|_| ())
    })
    .await;
    if up.is_stopped || down.is_stopped {
        if let Some(counters) = &counters {
            let stopped = [up.is_stopped, down.is_stopped].into_iter().zip(&counters.too_many);
            stopped.filter(|(is_stopped, _)| *is_stopped).for_each(|(_, counter)| counter.add(1));
        }
        close(client, upstream, &mut up, &mut down, timer).await;
    }
    Passed { up: up.passed, down: down.passed }
}

/// Ends a connection that carried too many messages. What came in time arrives; the client is told
/// why, and the upstream sees it go.
async fn close(
    mut client: Stream,
    mut upstream: Stream,
    up: &mut Direction,
    down: &mut Direction,
    timer: &mut Timer,
) {
    timer.set_after(Some(CLOSE_WITHIN));
    let ended = poll_fn(|cx| {
        // Stopped or not, it gives what it has, and its end is nobody's to wait for.
        let _ = up.poll(cx, &mut client, &mut upstream);
        down.poll_end_of_frame(cx, &mut upstream, &mut client)
    });
    let is_at_end = matches!(timer.bound(ended).await, Ok(Ok(())));
    if !is_at_end || down.is_over {
        return;
    }
    down.buffer.extend_from_slice(&websocket::close_frame());
    down.is_ended = true;
    let told = poll_fn(|cx| down.poll(cx, &mut upstream, &mut client));
    let is_told = matches!(timer.bound(told).await, Ok(Ok(())));
    drop(upstream);
    if !is_told {
        return;
    }
    // A socket that is closed over bytes that were not read is reset, and the client might not see
    // the frame.
    let mut unread = BytesMut::new();
    let over = poll_fn(|cx| {
        loop {
            unread.clear();
            unread.reserve(BUFFER);
            match ready!(client.poll_fill(cx, &mut unread)) {
                Ok(size) if size > 0 => {}
                _ => return Poll::Ready(()),
            }
        }
    });
    let _ = timer.bound(over).await;
}
