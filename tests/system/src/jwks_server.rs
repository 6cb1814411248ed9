//! An issuer of our own: it publishes the keys that a test says, in the way that the test says, and
//! counts who asks.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};

/// How the key set is answered.
#[derive(Clone, Debug)]
pub enum Manner {
    Keys(Value),
    Slowly(Value, Duration),
    Status(u16),
    Garbage,
    /// Valid, and larger than any key set.
    Huge(usize),
    /// Declares more than it sends.
    CutShort,
}

/// A key on P-256 with an identifier.
#[derive(Debug)]
pub struct Key {
    id: String,
    pair: KeyPair,
}

impl Key {
    pub fn new(id: &str) -> Result<Self> {
        Ok(Self { id: id.to_owned(), pair: KeyPair::generate()? })
    }

    /// As the set publishes it (RFC 7518 section 6.2.1).
    pub fn published(&self) -> Result<Value> {
        let point = self.pair.public_key_raw();
        let coordinate = |from: usize| {
            let bytes = point.get(from..from + 32).context("not a point of P-256")?;
            Ok::<_, anyhow::Error>(URL_SAFE_NO_PAD.encode(bytes))
        };
        Ok(json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id,
                  "x": coordinate(1)?, "y": coordinate(33)?}))
    }

    /// For `orders`, an hour long.
    pub fn token(&self, subject: &str) -> Result<String> {
        self.token_named(subject, &self.id)
    }

    /// With an identifier that is not its own.
    pub fn token_named(&self, subject: &str, id: &str) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({"iss": "https://issuer.test", "aud": "orders", "sub": subject,
                            "tenant": "acme", "iat": now, "exp": now + 3600});
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(id.to_owned());
        let key = EncodingKey::from_ec_pem(self.pair.serialize_pem().as_bytes())?;
        Ok(jsonwebtoken::encode(&header, &claims, &key)?)
    }
}

pub fn key_set(keys: &[&Key]) -> Result<Value> {
    let keys = keys.iter().map(|key| key.published()).collect::<Result<Vec<_>>>()?;
    Ok(json!({"keys": keys}))
}

#[derive(Debug)]
pub struct JwksServer {
    pub address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<AtomicU64>,
}

impl JwksServer {
    pub fn start(manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let (manner, asked) = (Arc::new(Mutex::new(manner)), Arc::new(AtomicU64::new(0)));
        let server = Self { address, manner: Arc::clone(&manner), asked: Arc::clone(&asked) };
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (manner, asked) = (Arc::clone(&manner), Arc::clone(&asked));
                thread::spawn(move || answer(&stream, &manner, &asked));
            }
        });
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    pub fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// How often the keys were asked for.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// One request on each connection.
fn answer(stream: &TcpStream, manner: &Mutex<Manner>, asked: &AtomicU64) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    asked.fetch_add(1, Ordering::SeqCst);
    let manner = manner.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (status, body, missing) = match manner {
        Manner::Keys(keys) => (200, keys.to_string(), 0),
        Manner::Slowly(keys, time) => {
            sandbox::pause(time);
            (200, keys.to_string(), 0)
        }
        Manner::Status(status) => (status, "no keys today".to_owned(), 0),
        Manner::Garbage => (200, "<html>sign in</html>".to_owned(), 0),
        Manner::Huge(size) => (200, format!("{{\"keys\": []{}}}", " ".repeat(size)), 0),
        Manner::CutShort => (200, "{\"keys\": [".to_owned(), 100),
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len() + missing
    )?;
    Ok(())
}
