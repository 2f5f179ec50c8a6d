import type { components } from "./api.js";

/** FieldError names an invalid field of a request. */
export type FieldError = components["schemas"]["FieldError"];

/**
 * ErrorCode is the stable code of an error. The last four come from the client: `unavailable` if
 * there was no usable answer, `unexpected_answer` if the answer was not Tollgate's, `spool_failed`
 * if the spool could not be written, and `closed` after close().
 */
export type ErrorCode =
  | "invalid_json" | "unauthorized" | "insufficient_scope" | "not_found" | "unknown_user" | "unknown_hold"
  | "idempotency_key_reused" | "hold_settled" | "hold_released" | "hold_expired" | "payload_too_large"
  | "unsupported_media_type" | "invalid_request" | "rate_limited" | "overloaded" | "internal"
  | "unavailable" | "unexpected_answer" | "spool_failed" | "closed"
  | (string & {});

/** TollgateError is an error answer of Tollgate, or a call without a usable answer. */
export class TollgateError extends Error {
  override readonly name = "TollgateError";
  readonly code: ErrorCode;
  /** The HTTP status; 0 if there was no answer. */
  readonly status: number;
  /** The invalid fields; may be empty. */
  readonly errors: readonly FieldError[];

  constructor(code: ErrorCode, detail: string, more: { status?: number; errors?: readonly FieldError[]; cause?: unknown } = {}) {
    super(`${code}: ${detail}`, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
    this.status = more.status ?? 0;
    this.errors = more.errors ?? [];
  }
}
