//! A real Keycloak, with a realm whose service account and whose user get tokens for `orders`.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use sandbox::{
    Process,
    http::{Connection, Reply},
};
use serde_json::{Value, json};

use crate::decisions::wait_for;

/// A JVM that has the machine to itself needs 20 s; one that shares two cores with builds was seen
/// to need more than three minutes.
const PATIENCE: Duration = Duration::from_secs(600);
pub const REALM: &str = "acme";
/// Its tokens are for `orders`.
pub const ORDERS: &str = "orders-app";
/// Its tokens are for `billing`.
pub const BILLING: &str = "billing-app";
const SECRET: &str = "of-the-tests";
pub const USER: &str = "ann";
const PASSWORD: &str = "of-ann";

#[derive(Debug)]
pub struct Keycloak {
    process: Process,
    address: SocketAddr,
    /// Of the administrator.
    bearer: String,
}

impl Drop for Keycloak {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Keycloak {
    /// Starts it with its database in memory. `cargo xtask test` says where it is installed.
    pub fn start(dir: &Path) -> Result<Self> {
        let home = std::env::var_os("TEST_KEYCLOAK")
            .context("TEST_KEYCLOAK is not set: run this with `cargo xtask test`")?;
        let address = SocketAddr::from(([127, 0, 0, 1], sandbox::free_port()?));
        let mut command = Command::new("sh");
        command.arg(Path::new(&home).join("bin/kc.sh"));
        // As `cargo xtask test` has built it: with its database in memory.
        command.args(["start", "--optimized", "--http-enabled=true", "--hostname-strict=false"]);
        command.arg("--http-host=127.0.0.1");
        command.arg(format!("--http-port={}", address.port()));
        command.env("KC_BOOTSTRAP_ADMIN_USERNAME", "admin");
        command.env("KC_BOOTSTRAP_ADMIN_PASSWORD", "admin");
        command.env("JAVA_OPTS_KC_HEAP", "-Xms64m -Xmx512m");
        let mut process = Process::start("keycloak", command, &dir.join("logs"))?;
        wait_for(&mut process, PATIENCE, &mut || {
            sandbox::http::get(address, "/realms/master").is_ok_and(|reply| reply.status == 200)
        })?;
        let mut keycloak = Self { process, address, bearer: String::new() };
        let form = "grant_type=password&client_id=admin-cli&username=admin&password=admin";
        keycloak.bearer = format!("Bearer {}", keycloak.token_of("master", form)?);
        keycloak.make_realm()?;
        Ok(keycloak)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A token of a client's service account, signed with the realm's active key.
    pub fn service_token(&self, client: &str) -> Result<String> {
        let form =
            format!("grant_type=client_credentials&client_id={client}&client_secret={SECRET}");
        self.token_of(REALM, &form)
    }

    /// A token of [`USER`], who gave the password to the client.
    pub fn user_token(&self, client: &str) -> Result<String> {
        let form = format!(
            "grant_type=password&client_id={client}&client_secret={SECRET}&username={USER}&\
             password={PASSWORD}"
        );
        self.token_of(REALM, &form)
    }

    /// A token of the same server and of another issuer.
    pub fn token_of_another_realm(&self) -> Result<String> {
        let form = "grant_type=password&client_id=admin-cli&username=admin&password=admin";
        self.token_of("master", form)
    }

    /// How long tokens are good for, from now on.
    pub fn set_token_life(&self, seconds: u32) -> Result<()> {
        let path = format!("/admin/realms/{REALM}");
        let body = json!({"accessTokenLifespan": seconds}).to_string();
        let reply = self.exchange("PUT", &path, "application/json", &body)?;
        ensure!(reply.status == 204, "{path}: {} {}", reply.status, reply.text());
        Ok(())
    }

    /// A new key, which signs from now on where its priority is the highest.
    pub fn add_key(&self, name: &str, priority: u32) -> Result<()> {
        let realm: Value = self.read(&format!("/admin/realms/{REALM}"))?;
        self.make(
            &format!("/admin/realms/{REALM}/components"),
            &json!({
                "name": name, "providerId": "rsa-generated", "parentId": realm["id"],
                "providerType": "org.keycloak.keys.KeyProvider",
                "config": {"priority": [priority.to_string()], "enabled": ["true"],
                           "active": ["true"], "keySize": ["2048"]},
            }),
        )
    }

    /// Ends it at once, and waits until it has ended.
    pub fn stop(&mut self) -> Result<()> {
        self.kill();
        self.process.wait(Duration::from_secs(20))?;
        Ok(())
    }

    /// Its shell has started a JVM of its own, in the same process group.
    fn kill(&self) {
        let group = format!("-{}", self.process.pid());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
    }

    fn make_realm(&self) -> Result<()> {
        self.make("/admin/realms", &json!({"realm": REALM, "enabled": true}))?;
        self.make(
            &format!("/admin/realms/{REALM}/client-scopes"),
            &json!({"name": "stoa:read", "protocol": "openid-connect",
                    "attributes": {"include.in.token.scope": "true"}}),
        )?;
        for (client, audience) in [(ORDERS, "orders"), (BILLING, "billing")] {
            self.make_client(client, audience)?;
        }
        self.make(
            &format!("/admin/realms/{REALM}/users"),
            &json!({
                "username": USER, "enabled": true, "emailVerified": true,
                "email": "ann@acme.test", "firstName": "Ann", "lastName": "Other",
                "credentials": [{"type": "password", "value": PASSWORD, "temporary": false}],
            }),
        )
    }

    fn make_client(&self, client: &str, audience: &str) -> Result<()> {
        let mapper = |name: &str, mapper: &str, config: Value| {
            json!({"name": name, "protocol": "openid-connect", "protocolMapper": mapper,
                   "config": config})
        };
        self.make(
            &format!("/admin/realms/{REALM}/clients"),
            &json!({
                "clientId": client, "secret": SECRET, "publicClient": false,
                "serviceAccountsEnabled": true, "standardFlowEnabled": false,
                "directAccessGrantsEnabled": true,
                "defaultClientScopes": ["basic", "roles", "profile", "stoa:read"],
                "protocolMappers": [
                    mapper("tenant", "oidc-hardcoded-claim-mapper", json!({
                        "claim.name": "tenant", "claim.value": "acme",
                        "jsonType.label": "String", "access.token.claim": "true"})),
                    mapper("audience", "oidc-audience-mapper", json!({
                        "included.custom.audience": audience, "access.token.claim": "true"})),
                ],
            }),
        )
    }

    fn token_of(&self, realm: &str, form: &str) -> Result<String> {
        let path = format!("/realms/{realm}/protocol/openid-connect/token");
        let reply = self.exchange("POST", &path, "application/x-www-form-urlencoded", form)?;
        ensure!(reply.status == 200, "{path}: {} {}", reply.status, reply.text());
        let answer: Value = serde_json::from_slice(&reply.body)?;
        Ok(answer["access_token"].as_str().context("no access_token")?.to_owned())
    }

    fn make(&self, path: &str, what: &Value) -> Result<()> {
        let reply = self.exchange("POST", path, "application/json", &what.to_string())?;
        ensure!(reply.status == 201, "{path}: {} {}", reply.status, reply.text());
        Ok(())
    }

    fn read(&self, path: &str) -> Result<Value> {
        let reply = self.exchange("GET", path, "application/json", "")?;
        ensure!(reply.status == 200, "{path}: {} {}", reply.status, reply.text());
        Ok(serde_json::from_slice(&reply.body)?)
    }

    fn exchange(&self, method: &str, path: &str, media_type: &str, body: &str) -> Result<Reply> {
        let host = self.address.to_string();
        let headers = [
            ("Host", host.as_str()),
            ("Authorization", self.bearer.as_str()),
            ("Content-Type", media_type),
            ("Connection", "close"),
        ];
        // The token endpoint takes no credentials of others.
        let headers: Vec<_> = headers.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let headers: Vec<_> = match media_type {
            "application/json" => headers,
            _ => headers.into_iter().filter(|(name, _)| *name != "Authorization").collect(),
        };
        Ok(Connection::open(self.address)?.exchange(method, path, &headers, body.as_bytes())?)
    }
}
