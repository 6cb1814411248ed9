// HTTP/2 with prior knowledge. `h2.js serve PORT` answers with what it has received, and with a
// trailer; `h2.js ask HOST PORT KEY` sends five requests at once on one connection, prints what came
// back.
const crypto = require("crypto");
const http2 = require("http2");

const [what, ...rest] = process.argv.slice(2);

function serve(port) {
  const server = http2.createServer();
  server.on("stream", (stream, headers) => {
    const digest = crypto.createHash("sha256");
    stream.on("data", (part) => digest.update(part));
    stream.on("end", () => {
      const { remoteAddress, remotePort } = stream.session.socket;
      const seen = {
        path: headers[":path"],
        headers: Object.keys(headers),
        client: [remoteAddress.replace("::ffff:", ""), remotePort],
        sha256: digest.digest("hex"),
      };
      stream.respond({ ":status": 200 }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "x-status": "0" }));
      stream.end(JSON.stringify(seen));
    });
  });
  server.listen(Number(port), "::");
}

function ask(host, port, key) {
  const session = http2.connect(`http://${host.includes(":") ? `[${host}]` : host}:${port}`);
  session.on("error", (error) => { console.log(JSON.stringify({ error: String(error) })); process.exit(1); });
  session.on("connect", () => {
    const client = [session.socket.localAddress, session.socket.localPort];
    const body = Buffer.alloc(300000, "x");
    let left = 5;
    for (let n = 0; n < 5; n++) {
      const isAllowed = n !== 3;
      // Node itself would write an IPv6 address without its brackets.
      const headers = {
        ":path": `/n/${n}`,
        ":method": "POST",
        ":authority": "shop.example",
        te: "trailers",
      };
      if (isAllowed) headers["x-api-key"] = key;
      const stream = session.request(headers);
      const answer = { n, client, status: 0, text: "", trailer: null };
      stream.on("response", (headers) => { answer.status = headers[":status"]; });
      stream.on("trailers", (trailers) => { answer.trailer = trailers["x-status"]; });
      stream.on("data", (part) => { answer.text += part; });
      stream.on("error", (error) => { answer.error = String(error); });
      stream.on("close", () => {
        console.log(JSON.stringify(answer));
        if (--left === 0) session.close();
      });
      stream.end(body);
    }
  });
}

if (what === "serve") serve(...rest);
else ask(...rest);
