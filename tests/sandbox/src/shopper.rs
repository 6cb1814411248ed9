//! A client of the demo service: what a shop's front end, its customers and its carriers send.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    http::{Connection, Reply},
    pause,
};

const SLUGS: [&str; 12] = [
    "trail-running-shoes",
    "merino-base-layer",
    "titanium-camping-mug",
    "folding-bike-lock",
    "carbon-bottle-cage",
    "gravel-handlebar-tape",
    "ceramic-pour-over",
    "cast-iron-skillet",
    "walnut-cutting-board",
    "linen-notebook-a5",
    "brass-fountain-pen",
    "adjustable-desk-lamp",
];
const NAMES: [&str; 6] =
    ["Ines Carvalho", "Jonas Weber", "Karim Haddad", "Lucia Romano", "Mats Nyberg", "Nora Quinn"];
const CATEGORIES: [&str; 4] = ["outdoor", "cycling", "kitchen", "desk"];
const API_KEY: &str = "demo-4f9a1c7e2b8d4e60a3c5";

/// Sends what `rounds` customers send, spread over `time`; `on_progress` is told how far it is and
/// how many requests were sent, and ends the traffic by answering false.
pub fn shop(
    address: SocketAddr,
    rounds: u32,
    time: Duration,
    mut on_progress: impl FnMut(f64, u64) -> bool,
) -> io::Result<u64> {
    let started = Instant::now();
    let mut shopper = Shopper { address, connection: Connection::open(address)?, sent: 0 };
    for round in 0..rounds {
        if round % 7 == 6 {
            shopper.connection = Connection::open(address)?;
        }
        shopper.visit(round)?;
        let due = time * (round + 1) / rounds;
        while started.elapsed() < due {
            if !on_progress(f64::from(round + 1) / f64::from(rounds), shopper.sent) {
                return Ok(shopper.sent);
            }
            pause((due - started.elapsed().min(due)).min(Duration::from_millis(50)));
        }
        if !on_progress(f64::from(round + 1) / f64::from(rounds), shopper.sent) {
            break;
        }
    }
    Ok(shopper.sent)
}

struct Shopper {
    address: SocketAddr,
    connection: Connection,
    sent: u64,
}

impl Shopper {
    fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> io::Result<Reply> {
        let text = body.map(Value::to_string).unwrap_or_default();
        self.send_text(method, target, headers, &text)
    }

    fn send_text(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Reply> {
        let mut all = vec![
            ("Host", "shop.internal"),
            ("User-Agent", "shop-frontend/2.4"),
            ("Accept-Encoding", "gzip"),
        ];
        if !body.is_empty() {
            all.push(("Content-Type", "application/json"));
        }
        all.extend_from_slice(headers);
        self.sent += 1;
        self.connection.exchange(method, target, &all, body.as_bytes())
    }

    fn visit(&mut self, round: u32) -> io::Result<()> {
        let n = round as usize;
        let slug = SLUGS[n * 5 % SLUGS.len()];
        self.browse(round, slug)?;
        let token = self.log_in(round)?;
        let bearer = format!("Bearer {token}");
        let auth = [("Authorization", bearer.as_str())];

        let name = NAMES[n % NAMES.len()];
        let email = format!("{}{round}@example.org", name.to_lowercase().replace(' ', "."));
        let phone =
            format!("+33 6 45 {:02} {:02} {:02}", round % 100, round * 7 % 100, round * 13 % 100);
        let customer = json!({
            "full_name": name, "email": email, "phone": phone, "iban": "DE89370400440532013000",
        });
        let created = self.send("POST", "/v1/customers", &auth, Some(&customer))?;
        let home = created.header("location").unwrap_or("/v1/customers/10007").to_owned();
        self.send("GET", &home, &auth, None)?;
        self.send("GET", &format!("/v1/customers/by-email/{email}"), &auth, None)?;
        self.send("PATCH", &home, &auth, Some(&json!({"phone": "+33 7 11 22 33 44"})))?;
        self.order(round, slug, &home, &auth)?;
        let review = json!({
            "stars": round % 5 + 1, "comment": format!("Very happy, {name} says."), "author": name,
        });
        self.send("POST", &format!("/v1/products/{slug}/reviews"), &auth, Some(&review))?;
        self.send("GET", &format!("/v1/products/{slug}/reviews"), &[], None)?;
        self.ship(round)?;
        self.err(round, &home, &auth)
    }

    fn browse(&mut self, round: u32, slug: &str) -> io::Result<()> {
        let category = CATEGORIES[round as usize % CATEGORIES.len()];
        let target = match round % 3 {
            0 => "/v1/products".to_owned(),
            1 => format!("/v1/products?page={}&per_page=5", round % 3 + 1),
            _ => format!("/v1/products?category={category}&page=1"),
        };
        self.send("GET", &target, &[], None)?;
        self.send("GET", &format!("/v1/products/{slug}"), &[], None)?;
        if round % 10 == 0 {
            self.send("GET", "/healthz", &[], None)?;
        }
        Ok(())
    }

    fn log_in(&mut self, round: u32) -> io::Result<String> {
        let given = json!({"email": "amelie.moreau0@example.org", "password": format!("Lilas-{round}-2026!")});
        let reply = self.send("POST", "/v1/sessions", &[], Some(&given))?;
        let session: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        Ok(session["token"].as_str().unwrap_or_default().to_owned())
    }

    fn order(
        &mut self,
        round: u32,
        slug: &str,
        home: &str,
        auth: &[(&str, &str)],
    ) -> io::Result<()> {
        let mut order = json!({
            "items": [{"product": slug, "quantity": round % 3 + 1}],
            "card": {"number": "4111 1111 1111 1111", "expires": "09/29"},
        });
        if round % 2 == 0 {
            order["note"] = json!("Please ring twice, my name is on the second bell.");
        }
        let made = self.send("POST", &format!("{home}/orders"), auth, Some(&order))?;
        self.send("GET", &format!("{home}/orders"), auth, None)?;
        if let Some(order) = made.header("location").map(str::to_owned) {
            self.send("GET", &order, auth, None)?;
            if round % 3 == 0 {
                self.send("DELETE", &order, auth, None)?;
            }
        }
        Ok(())
    }

    fn ship(&mut self, round: u32) -> io::Result<()> {
        let key = [("X-Api-Key", API_KEY)];
        let tracking = format!("RP{:08}FR", 40_000_000 + round * 7919);
        self.send("GET", &format!("/v1/shipments/{tracking}"), &key, None)?;
        if round % 2 == 1 {
            let step = ["picked_up", "in_transit", "delivered"][round as usize % 3];
            let status = json!({"status": step});
            self.send("PUT", &format!("/v1/shipments/{tracking}/status"), &key, Some(&status))?;
        }
        Ok(())
    }

    fn err(&mut self, round: u32, home: &str, auth: &[(&str, &str)]) -> io::Result<()> {
        match round % 6 {
            0 => self.send("GET", home, &[], None)?,
            1 => self.send("GET", "/v1/products/no-such-thing", &[], None)?,
            2 => self.send_text("POST", &format!("{home}/orders"), auth, "{\"items\": [")?,
            3 => self.send("POST", "/v1/customers", auth, Some(&json!({"email": "nobody"})))?,
            4 => self.send(
                "POST",
                "/v1/sessions",
                &[],
                Some(&json!({"email": "a@example.org", "password": "x"})),
            )?,
            _ => self.send("GET", "/v1/products?per_page=9000", &[], None)?,
        };
        if round % 9 == 0 {
            // A scanner comes by: none of this is an operation of the shop.
            for path in ["/wp-login.php", "/.env", "/admin/config.php"] {
                let address = self.address;
                crate::http::get(address, path)?;
                self.sent += 1;
            }
        }
        Ok(())
    }
}
