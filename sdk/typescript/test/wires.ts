// Between an agent and its server: a wire that can lose what goes over it, and a server of fewer features.

import { readFileSync } from "node:fs";
import { createServer, connect, type AddressInfo, type Server as NetServer, type Socket } from "node:net";
import {
  Client,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  status,
  type handleBidiStreamingCall,
  type handleUnaryCall,
  type ServiceError,
  type StatusObject,
} from "@grpc/grpc-js";
import { ClientEvent, ServerEvent, type Welcome } from "../src/proto/mas/runtime/v1/runtime.js";
import { atEnd } from "./behaviour.js";
import type { World } from "./world.js";

/** A TCP wire to a server. */
export class Wire {
  readonly address: string;
  readonly #server: NetServer;
  readonly #sockets = new Set<Socket>();
  #deaf = false;
  #dead = false;

  private constructor(server: NetServer) {
    this.#server = server;
    this.address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  static async to(address: string): Promise<Wire> {
    const [host = "", port = ""] = address.split(":");
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const wire = new Wire(server);
    server.on("connection", (near) => wire.#join(near, connect(Number(port), host)));
    atEnd(async () => wire.#close());
    return wire;
  }

  /** From now on what the server says is lost. */
  loseAnswers(): void {
    this.#deaf = true;
  }

  /** Ends all connections; what comes next is carried again. */
  cut(): void {
    this.#deaf = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Whether new connections are refused. */
  set dead(dead: boolean) {
    this.#dead = dead;
    if (dead) this.cut();
  }

  #join(near: Socket, far: Socket): void {
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(from);
      from.on("data", (data) => {
        if (!(this.#deaf && from === far)) to.write(data);
      });
      from.on("error", () => undefined);
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
    if (this.#dead) near.destroy();
  }

  #close(): void {
    this.cut();
    this.#server.close();
  }
}

const SERVICE = "/mas.runtime.v1.RuntimeService/";
const UNARY = ["Send", "Request", "Reply", "Discover", "GetState", "UpdateState", "ResetState"];

/** The world's server, for one agent, as one that offers only these features: it hands on everything else. `heard` is told
 * what the agent says; `change` changes the server's first word. */
export async function plainServer(
  world: World,
  agent: string,
  offers: (feature: string) => boolean,
  heard: (event: ClientEvent) => void = () => undefined,
  change: (welcome: Welcome) => void = () => undefined,
): Promise<string> {
  const { ca, cert, key } = world.files(agent);
  const upstream = new Client(
    world.address,
    credentials.createSsl(readFileSync(ca), readFileSync(key), readFileSync(cert)),
    { "grpc.use_local_subchannel_pool": 1, "grpc.ssl_target_name_override": "localhost" },
  );
  const bytes = (data: Buffer): Buffer => data;
  const server = new Server();
  for (const name of UNARY) {
    const handle: handleUnaryCall<Buffer, Buffer> = (call, answer) => {
      upstream.makeUnaryRequest(SERVICE + name, bytes, bytes, call.request, new Metadata(), {}, (error, response) =>
        answer(error as ServiceError, response),
      );
    };
    server.register(SERVICE + name, handle, bytes, bytes, "unary");
  }
  const transport: handleBidiStreamingCall<ClientEvent, ServerEvent> = (call) => {
    const encode = (event: ClientEvent): Buffer => Buffer.from(ClientEvent.encode(event).finish());
    const far = upstream.makeBidiStreamRequest(SERVICE + "Transport", encode, (data: Buffer) => ServerEvent.decode(data));
    call.on("data", (event: ClientEvent) => {
      heard(event);
      far.write(event);
    });
    call.on("end", () => far.end());
    call.on("cancelled", () => far.cancel());
    call.on("error", () => far.cancel());
    far.on("data", ({ event }: ServerEvent) => {
      if (event?.$case === "welcome") {
        event.value.features = event.value.features.filter(offers);
        change(event.value);
      }
      call.write({ event });
    });
    far.on("error", () => undefined);
    far.on("status", (ended: StatusObject) => {
      if (ended.code === status.OK) call.end();
      else call.emit("error", ended);
    });
  };
  server.register(
    SERVICE + "Transport",
    transport,
    (event: ServerEvent) => Buffer.from(ServerEvent.encode(event).finish()),
    (data: Buffer) => ClientEvent.decode(data),
    "bidi",
  );
  const certs = `${world.folder}/certs`;
  const pair = { private_key: readFileSync(`${certs}/server.key`), cert_chain: readFileSync(`${certs}/server.pem`) };
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createSsl(readFileSync(ca), [pair], true), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  atEnd(async () => {
    server.forceShutdown();
    upstream.close();
  });
  return `127.0.0.1:${port}`;
}
