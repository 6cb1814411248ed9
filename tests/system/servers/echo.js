// A Node server for marked traffic; answers as echo.py does.
"use strict";
const http = require("node:http");
const zlib = require("node:zlib");

http
  .createServer((request, response) => {
    request.on("data", () => {});
    request.on("end", () => {
      const url = new URL(request.url, "http://service.test");
      const length = Number(url.searchParams.get("len") ?? 0);
      const marker = `${url.pathname.split("/").pop()}.`;
      let body = Buffer.from(marker.repeat(Math.floor(length / marker.length) + 1).slice(0, length));
      const headers = { "Content-Type": "text/plain" };
      if (url.searchParams.has("gzip")) {
        body = zlib.gzipSync(body, { level: 1 });
        headers["Content-Encoding"] = "gzip";
      }
      const chunked = url.searchParams.has("chunked");
      if (!chunked) headers["Content-Length"] = body.length;
      response.writeHead(Number(url.searchParams.get("status") ?? 200), headers);
      if (chunked) {
        // Without a length, Node frames by chunks: one for each write.
        for (let at = 0; at < body.length; at += 700) response.write(body.subarray(at, at + 700));
        response.end();
      } else {
        response.end(body);
      }
    });
  })
  .listen({ port: Number(process.argv[2]), host: "::", backlog: 512 });
