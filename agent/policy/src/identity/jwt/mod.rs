//! JSON Web Tokens (RFC 7519) as bearer tokens (RFC 6750), verified as RFC 8725 advises: the
//! algorithm is what the key is for, never what the token says, and issuer and audience are ours.

pub mod algorithm;
pub mod claims;
mod config;
pub(super) mod fault;
pub mod key_set;
pub mod key_source;
pub mod memory;
mod token;

use std::sync::Arc;

pub use self::{
    algorithm::Algorithm,
    claims::ClaimsConfig,
    config::{JwtConfig, KeycloakConfig, Secret},
};
use self::{
    claims::{Reader, Rules},
    fault::Fault,
    key_set::{Key, KeySet},
    key_source::KeySource,
    memory::{Memory, RememberedTokens, TokenHash, Verified},
    token::Token,
};
use super::{
    OneOrMany, Rejection,
    credential::Carrier,
    forward::{Forward, Known},
};
use crate::{clock::Now, context::RequestContext, decision::Decision};

#[derive(Debug)]
pub struct Jwt {
    carrier: Carrier,
    /// For tokens that come with a proof (RFC 9449 section 7.1).
    proven: Option<Carrier>,
    algorithms: Vec<Algorithm>,
    rules: Rules,
    reader: Reader,
    keys: Keys,
    memory: Arc<Memory>,
    remembered: Arc<RememberedTokens>,
    longest_token: usize,
    forward_token: bool,
}

#[derive(Debug)]
enum Keys {
    Fixed(Arc<KeySet>),
    Remote(Arc<KeySource>),
}

impl Jwt {
    /// Takes tokens under the scheme `DPoP` too, where they are bearer tokens otherwise.
    #[must_use]
    pub(super) fn with_proofs(mut self) -> Self {
        self.proven = self.carrier.is_bearer().then(|| self.carrier.of_scheme(super::dpop::SCHEME));
        self
    }

    pub(super) async fn identify(
        &self,
        request: &RequestContext<'_>,
        forward: &Forward,
        decision: &mut Decision,
    ) -> Result<Option<Arc<Known>>, Rejection> {
        let proven = || self.proven.as_ref().map_or(Ok(None), |carrier| carrier.read(request));
        let Some(token) = self.carrier.read(request)?.map_or_else(proven, |t| Ok(Some(t)))? else {
            return Ok(None);
        };
        if token.len() > self.longest_token {
            return Err(Fault::TooLong.into());
        }
        let now = Now::read();
        let hash = self.memory.hash(token);
        let known = match self.recall(hash, now) {
            Some(known) => {
                self.remembered.hit();
                known
            }
            // Boxed, so that requests with a token seen before carry none of its state.
            None => Box::pin(self.verify(token, hash, forward, now)).await?,
        };
        if !self.forward_token {
            decision.headers_to_remove.push(self.carrier.name.clone());
        }
        Ok(Some(known))
    }

    /// `None`: not seen before, or no more.
    fn recall(&self, hash: TokenHash, now: Now) -> Option<Arc<Known>> {
        if let Keys::Remote(source) = &self.keys
            && !source.is_current(now)
        {
            return None;
        }
        let found = self.memory.find(hash, now)?;
        found.as_ref().map(|found| Arc::clone(&found.known))
    }

    #[cold]
    async fn verify(
        &self,
        token: &[u8],
        hash: TokenHash,
        forward: &Forward,
        now: Now,
    ) -> Result<Arc<Known>, Rejection> {
        let token = Token::parse(token)?;
        let algorithm = token.algorithm()?;
        if !self.algorithms.contains(&algorithm) {
            return Err(Fault::Algorithm.into());
        }
        // Before the signature, so that tokens of other issuers cost little and make us fetch
        // nothing.
        let until = self.rules.check(&token.claims, now)?;
        let binding = token.binding()?;
        let key = self.find_key(&token, algorithm, now).await?;
        self.remembered.miss();
        let known = forward.know(self.reader.identity(token.claims)?)?;
        let known = Arc::new(known.bound_to(binding));
        self.memory.insert(Verified { hash, known: Arc::clone(&known), until, key }, now);
        Ok(known)
    }

    /// The key that the token was signed with.
    async fn find_key(
        &self,
        token: &Token<'_>,
        algorithm: Algorithm,
        now: Now,
    ) -> Result<Arc<Key>, Fault> {
        let source = match &self.keys {
            Keys::Fixed(set) => return token.verify(set, algorithm),
            Keys::Remote(source) => source,
        };
        let first = match source.at_hand(now) {
            Some(set) => token.verify(&set, algorithm),
            None => Err(Fault::KeysUnavailable),
        };
        // A token that names its key is right or wrong; without a name, a key that is new may be
        // the one.
        let may_be_new = match first {
            Err(Fault::UnknownKey | Fault::KeysUnavailable) => true,
            Err(Fault::Signature) => token.key_id().is_none(),
            _ => false,
        };
        if !may_be_new {
            return first;
        }
        source.refetch(now).await;
        match source.at_hand(Now::read()) {
            Some(set) => token.verify(&set, algorithm),
            None => Err(Fault::KeysUnavailable),
        }
    }
}

#[cfg(test)]
mod tests;
