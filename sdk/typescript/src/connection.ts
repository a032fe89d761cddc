// One gRPC connection, of one agent to one address, with the certificates of this moment.

import { isIP } from "node:net";
import { checkServerIdentity, type PeerCertificate } from "node:tls";
import {
  Client,
  credentials as grpcCredentials,
  Metadata,
  type ChannelOptions,
  type ClientDuplexStream,
  type ServiceError,
  type VerifyOptions,
} from "@grpc/grpc-js";

import type { Loaded } from "./credentials.js";
import { Lost } from "./failures.js";
import * as wire from "./proto/mas/runtime/v1/runtime.js";
import { hostOf, isLoopback } from "./settings.js";
import type { Limit } from "./time.js";

/** A silent connection is pinged after this, and is given up when no answer comes in time. Sooner than the server would
 * (20 s), for which answering a ping is cheaper than sending one. */
const KEEPALIVE_TIME_MS = 19_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
/** Longest message that is received. */
const MAX_RECEIVE_BYTES = 4 * 1024 * 1024;

/** The name that TLS is told of a server that has none: an address may not stand there. Its certificate is held against the
 * address all the same. */
const NO_NAME = "address.invalid";

const SERVICE = "/mas.runtime.v1.RuntimeService/";

/** A call of the protocol. */
export interface Method<Q, R> {
  readonly path: string;
  readonly encode: (request: Q) => Buffer;
  readonly decode: (bytes: Buffer) => R;
}

/** The calls of the protocol. */
export const METHODS = {
  send: method("Send", wire.SendRequest, wire.SendResponse),
  request: method("Request", wire.RequestRequest, wire.RequestResponse),
  reply: method("Reply", wire.ReplyRequest, wire.ReplyResponse),
  discover: method("Discover", wire.DiscoverRequest, wire.DiscoverResponse),
  getState: method("GetState", wire.GetStateRequest, wire.GetStateResponse),
  updateState: method("UpdateState", wire.UpdateStateRequest, wire.UpdateStateResponse),
  resetState: method("ResetState", wire.ResetStateRequest, wire.ResetStateResponse),
};
const TRANSPORT = method("Transport", wire.ClientEvent, wire.ServerEvent);

/** The Transport stream. */
export type Stream = ClientDuplexStream<wire.ClientEvent, wire.ServerEvent>;

/** A channel of its own: it shares no connection with another agent, and none outlives it. */
export class Connection {
  readonly #client: Client;
  /** How each unary call is given up that has no answer yet. */
  readonly #unanswered = new Set<() => void>();

  constructor(address: string, { ca, cert, key }: Loaded, proxy: boolean) {
    const options: ChannelOptions = {
      "grpc.keepalive_time_ms": KEEPALIVE_TIME_MS,
      "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
      "grpc.keepalive_permit_without_calls": 1,
      "grpc.max_receive_message_length": MAX_RECEIVE_BYTES,
      "grpc.use_local_subchannel_pool": 1,
      "grpc.enable_http_proxy": proxy && !isLoopback(address) ? 1 : 0,
      // Whether a call is made again is decided where its meaning is known.
      "grpc.enable_retries": 0,
      "grpc.service_config_disable_resolution": 1,
    };
    const host = hostOf(address);
    const verify: VerifyOptions = {};
    if (isIP(host) !== 0) {
      options["grpc.ssl_target_name_override"] = NO_NAME;
      verify.checkServerIdentity = (_name: string, shown: PeerCertificate) => checkServerIdentity(host, shown);
    }
    this.#client = new Client(address, grpcCredentials.createSsl(ca, key, cert, verify), options);
  }

  /** Opens the Transport stream. */
  transport(): Stream {
    return this.#client.makeBidiStreamRequest(TRANSPORT.path, TRANSPORT.encode, TRANSPORT.decode);
  }

  /** Makes a unary call; throws gRPC's `ServiceError`. `sent` hears when it is on its way. */
  unary<Q, R>(method: Method<Q, R>, request: Q, limit: Limit, sent: () => void): Promise<R> {
    return limit.wait<R>((resolve, reject) => {
      sent();
      const answered = (error: ServiceError | null, response?: R): void => {
        this.#unanswered.delete(giveUp);
        if (error !== null) reject(error);
        else resolve(response as R);
      };
      const { path, encode, decode } = method;
      const options = { deadline: Date.now() + limit.left };
      const call = this.#client.makeUnaryRequest(path, encode, decode, request, new Metadata(), options, answered);
      const giveUp = (): void => {
        call.cancel();
        reject(new Lost("the agent was stopped before the answer"));
      };
      this.#unanswered.add(giveUp);
      return () => call.cancel();
    });
  }

  /** Waits for no more answers. */
  giveUp(): void {
    for (const giveUp of this.#unanswered) giveUp();
  }

  close(): void {
    this.#client.close();
  }
}

function method<Q, R>(name: string, request: wire.MessageFns<Q>, response: wire.MessageFns<R>): Method<Q, R> {
  return {
    path: SERVICE + name,
    encode: (message) => {
      const bytes = request.encode(message).finish();
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    },
    decode: (bytes) => response.decode(bytes),
  };
}
