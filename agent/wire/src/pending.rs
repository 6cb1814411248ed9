//! An exchange that is not over: a request, and what was seen of its response.

use crate::{
    exchange::{Exchange, Incomplete, Request, Response},
    segment::{Endpoints, FlowId, Loss, Nanos},
};

pub(crate) struct Pending {
    pub started: Nanos,
    pub ended: Nanos,
    pub request: Option<Request>,
    pub request_done: bool,
    pub response: Option<Response>,
    pub response_done: bool,
    /// Bytes of the request that follow its head's visible part are lost.
    pub is_request_cut: bool,
    /// Its head was seen in part, so nothing tells where the response ends.
    pub is_response_cut: bool,
    pub is_head: bool,
    pub is_connect: bool,
    pub interim: Vec<u16>,
    /// Server offset that the client had acknowledged when it sent the request's first byte.
    pub head_ack: Option<u64>,
    /// Client offset behind the head.
    pub head_end: u64,
    /// The client's bytes before this request are not all known, so that counting proves nothing.
    pub after_gap: bool,
    /// Client offset behind the unseen bytes before it.
    pub gap_end: Option<u64>,
    /// Some of them cannot belong to the request before.
    pub after_foreign_gap: bool,
    /// `head_ack` lies beyond what the client had acknowledged in the message before.
    pub is_ack_new: bool,
    /// Value of the connection's count of unclaimed server bytes when the request was seen.
    pub unclaimed: u64,
    /// What the connection's account says that it costs.
    pub accounted: usize,
    incomplete: u16,
    lost: [u64; Loss::ALL.len()],
}

impl Pending {
    pub fn new(started: Nanos) -> Self {
        Self {
            started,
            ended: started,
            request: None,
            request_done: false,
            response: None,
            response_done: false,
            is_request_cut: false,
            is_response_cut: false,
            is_head: false,
            is_connect: false,
            interim: Vec::new(),
            head_ack: None,
            head_end: 0,
            after_gap: false,
            gap_end: None,
            after_foreign_gap: false,
            is_ack_new: false,
            unclaimed: 0,
            accounted: 0,
            incomplete: 0,
            lost: [0; Loss::ALL.len()],
        }
    }

    pub fn mark(&mut self, reason: Incomplete) {
        self.incomplete |= 1 << reason as u16;
    }

    pub fn add_lost(&mut self, reason: Loss, bytes: u64) {
        self.lost[reason as usize] += bytes;
    }

    pub fn add_all_lost(&mut self, lost: &[u64; Loss::ALL.len()]) {
        for (mine, more) in self.lost.iter_mut().zip(lost) {
            *mine += more;
        }
    }

    /// With a final response of this status the connection is HTTP no more (RFC 9110 sections 9.3.6
    /// and 15.2.2).
    pub fn is_tunnel(&self, status: u16) -> bool {
        status == 101 || (self.is_connect && (200..300).contains(&status))
    }

    pub fn memory(&self) -> usize {
        let request = self.request.as_ref().map(|r| &r.message);
        let response = self.response.as_ref().map(|r| &r.message);
        let messages = request.into_iter().chain(response);
        size_of::<Self>()
            + messages
                .map(|m| m.head.len() + m.headers.len() * 16 + m.body.content.len())
                .sum::<usize>()
    }

    /// By how much it grew since the last call. It never shrinks.
    pub fn update_account(&mut self) -> usize {
        let grown = self.memory().saturating_sub(self.accounted);
        self.accounted += grown;
        grown
    }

    /// Takes the exchange out; what stays behind is of no more use.
    #[inline]
    pub fn take_exchange(&mut self, flow: FlowId, endpoints: Endpoints) -> Exchange {
        if self.response.is_none() {
            self.mark(Incomplete::ResponseMissing);
        }
        if self.request.is_none() {
            self.mark(Incomplete::RequestHeadLost);
        }
        let incomplete = match self.incomplete {
            0 => Vec::new(),
            bits => Incomplete::ALL.into_iter().filter(|r| bits >> *r as u16 & 1 == 1).collect(),
        };
        let lost = if self.lost == [0; Loss::ALL.len()] {
            Vec::new()
        } else {
            let all = Loss::ALL.into_iter().map(|reason| (reason, self.lost[reason as usize]));
            all.filter(|(_, bytes)| *bytes > 0).collect()
        };
        Exchange {
            flow,
            endpoints,
            started: self.started,
            ended: self.ended,
            request: self.request.take(),
            response: self.response.take(),
            interim: std::mem::take(&mut self.interim),
            incomplete,
            lost,
        }
    }
}
