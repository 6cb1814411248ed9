//! What the shop knows and answers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A request as far as the shop looks at it.
pub struct Call {
    pub method: String,
    pub path: Vec<String>,
    pub query: String,
    pub authorization: Option<String>,
    pub api_key: Option<String>,
    pub body: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<Value>,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self { status: 200, headers: Vec::new(), body: Some(body) }
    }

    fn created(location: String, body: Value) -> Self {
        Self { status: 201, headers: vec![("location", location)], body: Some(body) }
    }

    fn empty() -> Self {
        Self { status: 204, headers: Vec::new(), body: None }
    }

    /// RFC 9457.
    pub fn problem(status: u16, detail: &str) -> Self {
        let title = match status {
            400 => "Bad Request",
            401 => "Unauthorized",
            404 => "Not Found",
            405 => "Method Not Allowed",
            422 => "Unprocessable Content",
            _ => "Error",
        };
        let body =
            json!({"type": "about:blank", "title": title, "status": status, "detail": detail});
        let mut headers = Vec::new();
        if status == 401 {
            headers.push(("www-authenticate", "Bearer".to_owned()));
        }
        Self { status, headers, body: Some(body) }
    }
}

/// More than the demo creates in its few seconds.
const MOST_RECORDS: usize = 5000;

pub struct Shop {
    products: BTreeMap<String, Value>,
    customers: BTreeMap<u64, Value>,
    orders: BTreeMap<String, (u64, Value)>,
    reviews: BTreeMap<String, Vec<Value>>,
    sessions: u64,
    counter: u64,
}

const PRODUCTS: [(&str, &str, u32); 12] = [
    ("trail-running-shoes", "outdoor", 12900),
    ("merino-base-layer", "outdoor", 7450),
    ("titanium-camping-mug", "outdoor", 3200),
    ("folding-bike-lock", "cycling", 5600),
    ("carbon-bottle-cage", "cycling", 4100),
    ("gravel-handlebar-tape", "cycling", 2900),
    ("ceramic-pour-over", "kitchen", 3850),
    ("cast-iron-skillet", "kitchen", 6400),
    ("walnut-cutting-board", "kitchen", 8800),
    ("linen-notebook-a5", "desk", 1800),
    ("brass-fountain-pen", "desk", 9500),
    ("adjustable-desk-lamp", "desk", 11200),
];

impl Shop {
    pub fn stocked() -> Self {
        let products = PRODUCTS
            .iter()
            .enumerate()
            .map(|(n, (slug, category, price))| {
                let product = json!({
                    "slug": slug,
                    "name": slug.replace('-', " "),
                    "category": category,
                    "price": {"amount": price, "currency": "EUR"},
                    "in_stock": n % 5 != 3,
                    "rating": 3.5 + (n % 4) as f64 * 0.4,
                    "tags": [category, if n % 2 == 0 { "new" } else { "classic" }],
                    "updated_at": format!("2026-0{}-1{}T08:30:00Z", n % 8 + 1, n % 9),
                });
                ((*slug).to_owned(), product)
            })
            .collect();
        let mut shop = Self {
            products,
            customers: BTreeMap::new(),
            orders: BTreeMap::new(),
            reviews: BTreeMap::new(),
            sessions: 0,
            counter: 0,
        };
        for n in 0..40 {
            shop.add_customer(json!({
                "full_name": format!("{} {}", FIRST[n % FIRST.len()], LAST[n * 3 % LAST.len()]),
                "email": format!("{}.{}{n}@example.org", FIRST[n % FIRST.len()], LAST[n * 3 % LAST.len()]).to_lowercase(),
                "phone": format!("+33 6 12 34 {:02} {:02}", n, 99 - n),
                "iban": "FR1420041010050500013M02606",
            }));
        }
        shop
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn add_customer(&mut self, given: Value) -> u64 {
        let id = 10_000 + self.next() * 7;
        let customer = json!({
            "id": id,
            "full_name": given["full_name"],
            "email": given["email"],
            "phone": given["phone"],
            "iban": given["iban"],
            "address": {"street": "12 rue des Lilas", "city": "Lyon", "postal_code": "69003", "country": "FR"},
            "loyalty": if id.is_multiple_of(2) { "gold" } else { "standard" },
            "created_at": "2026-03-04T10:15:00Z",
        });
        self.customers.insert(id, customer);
        id
    }

    pub fn answer(&mut self, call: &Call) -> Answer {
        let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
        match (call.method.as_str(), path.as_slice()) {
            ("GET", ["healthz"]) => Answer::ok(json!({"status": "ok"})),
            ("POST", ["v1", "sessions"]) => self.log_in(call),
            ("GET", ["v1", "products"]) => self.list_products(call),
            ("GET", ["v1", "products", slug]) => self.product(slug),
            ("GET", ["v1", "products", slug, "reviews"]) => self.list_reviews(slug),
            ("POST", ["v1", "products", slug, "reviews"]) => self.review(call, slug),
            (_, ["v1", "customers", rest @ ..]) => {
                if !has_token(call) {
                    return Answer::problem(401, "A bearer token is required.");
                }
                self.customers(call, rest)
            }
            (_, ["v1", "shipments", rest @ ..]) => {
                if call.api_key.as_deref() != Some("demo-4f9a1c7e2b8d4e60a3c5") {
                    return Answer::problem(401, "An API key is required.");
                }
                shipments(call, rest)
            }
            _ => Answer::problem(404, "There is nothing here."),
        }
    }

    fn log_in(&mut self, call: &Call) -> Answer {
        let Some(given) = json_body(call) else {
            return Answer::problem(400, "The body is not JSON.");
        };
        if given["password"].as_str().is_none_or(|password| password.len() < 8) {
            return Answer::problem(401, "Wrong email or password.");
        }
        self.sessions += 1;
        Answer {
            status: 201,
            headers: Vec::new(),
            body: Some(json!({
                "token": made_up_jwt(self.sessions),
                "token_type": "Bearer",
                "expires_in": 3600,
            })),
        }
    }

    fn list_products(&self, call: &Call) -> Answer {
        let number = |name: &str, default: usize| match query(call, name) {
            None => Some(default),
            Some(text) => text.parse::<usize>().ok().filter(|n| (1..=50).contains(n)),
        };
        let (Some(page), Some(per_page)) = (number("page", 1), number("per_page", 5)) else {
            return Answer::problem(422, "page and per_page are numbers from 1 to 50.");
        };
        let category = query(call, "category");
        let found: Vec<&Value> = self
            .products
            .values()
            .filter(|product| category.is_none_or(|wanted| product["category"] == wanted))
            .collect();
        let items: Vec<&Value> =
            found.iter().skip((page - 1) * per_page).take(per_page).copied().collect();
        let next =
            (page * per_page < found.len()).then(|| format!("/v1/products?page={}", page + 1));
        Answer::ok(json!({
            "items": items, "page": page, "per_page": per_page, "total": found.len(), "next": next,
        }))
    }

    fn product(&self, slug: &str) -> Answer {
        match self.products.get(slug) {
            Some(product) => Answer::ok(product.clone()),
            None => Answer::problem(404, "No such product."),
        }
    }

    fn list_reviews(&self, slug: &str) -> Answer {
        if !self.products.contains_key(slug) {
            return Answer::problem(404, "No such product.");
        }
        let reviews: Vec<&Value> =
            self.reviews.get(slug).into_iter().flatten().rev().take(10).collect();
        Answer::ok(json!({"items": reviews}))
    }

    fn review(&mut self, call: &Call, slug: &str) -> Answer {
        if !has_token(call) {
            return Answer::problem(401, "A bearer token is required.");
        }
        if !self.products.contains_key(slug) {
            return Answer::problem(404, "No such product.");
        }
        let Some(given) = json_body(call) else {
            return Answer::problem(400, "The body is not JSON.");
        };
        if given["stars"].as_u64().is_none_or(|stars| !(1..=5).contains(&stars)) {
            return Answer::problem(422, "stars is a number from 1 to 5.");
        }
        let id = self.next();
        let review = json!({
            "id": id, "stars": given["stars"], "comment": given["comment"],
            "author": given["author"], "created_at": "2026-11-02T18:00:00Z",
        });
        let reviews = self.reviews.entry(slug.to_owned()).or_default();
        if reviews.len() < MOST_RECORDS {
            reviews.push(review.clone());
        }
        Answer::created(format!("/v1/products/{slug}/reviews/{id}"), review)
    }

    fn customers(&mut self, call: &Call, path: &[&str]) -> Answer {
        match (call.method.as_str(), path) {
            ("POST", []) => {
                let Some(given) = json_body(call) else {
                    return Answer::problem(400, "The body is not JSON.");
                };
                if given["email"].as_str().is_none_or(|email| !email.contains('@')) {
                    return Answer::problem(422, "email is not an address.");
                }
                if self.customers.len() >= MOST_RECORDS {
                    return Answer::problem(503, "The shop is full.");
                }
                let id = self.add_customer(given);
                let customer = self.customers.get(&id).cloned().unwrap_or_default();
                Answer::created(format!("/v1/customers/{id}"), customer)
            }
            ("GET", ["by-email", email]) => {
                let email = email.replace("%40", "@");
                match self.customers.values().find(|customer| customer["email"] == *email) {
                    Some(customer) => Answer::ok(customer.clone()),
                    None => Answer::problem(404, "No such customer."),
                }
            }
            (_, [id, rest @ ..]) => match id.parse::<u64>() {
                Ok(id) if self.customers.contains_key(&id) => self.customer(call, id, rest),
                Ok(_) => Answer::problem(404, "No such customer."),
                Err(_) => Answer::problem(400, "A customer id is a number."),
            },
            _ => Answer::problem(405, "Not this method."),
        }
    }

    fn customer(&mut self, call: &Call, id: u64, path: &[&str]) -> Answer {
        match (call.method.as_str(), path) {
            ("GET", []) => Answer::ok(self.customers.get(&id).cloned().unwrap_or_default()),
            ("PATCH", []) => {
                let Some(Value::Object(given)) = json_body(call) else {
                    return Answer::problem(400, "The body is not a JSON object.");
                };
                let customer = self.customers.entry(id).or_default();
                for (key, value) in given {
                    if customer.get(&key).is_none() {
                        return Answer::problem(422, "There is no such field.");
                    }
                    customer[key] = value;
                }
                Answer::ok(customer.clone())
            }
            ("GET", ["orders"]) => {
                let orders: Vec<&Value> = self
                    .orders
                    .values()
                    .filter(|(customer, _)| *customer == id)
                    .map(|(_, order)| order)
                    .take(20)
                    .collect();
                Answer::ok(json!({"items": orders, "total": orders.len()}))
            }
            ("POST", ["orders"]) => self.order(call, id),
            ("GET", ["orders", order]) => match self.orders.get(*order) {
                Some((customer, order)) if *customer == id => Answer::ok(order.clone()),
                _ => Answer::problem(404, "No such order."),
            },
            ("DELETE", ["orders", order]) => match self.orders.remove(*order) {
                Some(_) => Answer::empty(),
                None => Answer::problem(404, "No such order."),
            },
            _ => Answer::problem(404, "There is nothing here."),
        }
    }

    fn order(&mut self, call: &Call, customer: u64) -> Answer {
        let Some(given) = json_body(call) else {
            return Answer::problem(400, "The body is not JSON.");
        };
        let items = given["items"].as_array().cloned().unwrap_or_default();
        let mut total = 0;
        for item in &items {
            let price = item["product"].as_str().and_then(|slug| self.products.get(slug));
            let Some(price) = price.and_then(|product| product["price"]["amount"].as_u64()) else {
                return Answer::problem(422, "An item names no product of ours.");
            };
            total += price * item["quantity"].as_u64().unwrap_or(1);
        }
        if items.is_empty() || self.orders.len() >= MOST_RECORDS {
            return Answer::problem(422, "An order has items.");
        }
        let number = self.next().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            number >> 32,
            (number >> 16) & 0xffff,
            number & 0xfff,
            (number >> 8) & 0xfff,
            number.rotate_left(17) & 0xffff_ffff_ffff
        );
        let order = json!({
            "id": id, "customer_id": customer, "status": "pending", "items": items,
            "total": {"amount": total, "currency": "EUR"},
            "card": {"number": given["card"]["number"], "expires": given["card"]["expires"]},
            "note": given["note"], "created_at": "2026-11-03T09:00:00Z",
        });
        self.orders.insert(id.clone(), (customer, order.clone()));
        Answer::created(format!("/v1/customers/{customer}/orders/{id}"), order)
    }
}

const FIRST: [&str; 8] = ["Amelie", "Bruno", "Chloe", "Dario", "Elif", "Farid", "Greta", "Hugo"];
const LAST: [&str; 7] = ["Moreau", "Conti", "Schmidt", "Okafor", "Yilmaz", "Novak", "Lindqvist"];

fn shipments(call: &Call, path: &[&str]) -> Answer {
    match (call.method.as_str(), path) {
        ("GET", [tracking]) => Answer::ok(json!({
            "tracking": tracking, "carrier": "Rapide", "status": "in_transit",
            "position": {"latitude": 45.764, "longitude": 4.8357}, "weight_kg": 1.25,
        })),
        ("PUT", [tracking, "status"]) => match json_body(call) {
            Some(given) if given["status"].is_string() => {
                Answer::ok(json!({"tracking": tracking, "status": given["status"]}))
            }
            Some(_) => Answer::problem(422, "status is a text."),
            None => Answer::problem(400, "The body is not JSON."),
        },
        _ => Answer::problem(404, "There is nothing here."),
    }
}

fn has_token(call: &Call) -> bool {
    call.authorization.as_deref().is_some_and(|value| value.starts_with("Bearer eyJ"))
}

fn json_body(call: &Call) -> Option<Value> {
    serde_json::from_slice(&call.body).ok()
}

fn query<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    call.query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// Has the form of a JWT, and signs nothing.
fn made_up_jwt(number: u64) -> String {
    let mut signature = String::new();
    let mut state = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    for _ in 0..43 {
        // xorshift64: it need only look random.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        signature.push(char::from(alphabet[(state % 64) as usize]));
    }
    format!(
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbWVsaWUubW9yZWF1QGV4YW1wbGUub3JnIn0.{signature}"
    )
}
