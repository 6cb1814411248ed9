// A server that says back what it is told, in every place a response has: for the privacy tests.
"use strict";
const http = require("node:http");

http
  .createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      const body = Buffer.concat(chunks);
      // A header of its own may ask for any response header.
      for (const [name, value] of Object.entries(request.headers)) {
        if (name.startsWith("x-mirror-")) response.setHeader(name.slice("x-mirror-".length), value);
      }
      const status = Number(request.headers["x-status"] ?? 200);
      response.setHeader("Content-Type", request.headers["content-type"] ?? "text/plain");
      response.writeHead(status);
      response.end(status === 204 ? undefined : body);
    });
  })
  .listen({ port: Number(process.argv[2]), host: "::", backlog: 512 });
