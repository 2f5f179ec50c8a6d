export { Tollgate } from "./client.js";
export type {
  Answered, CheckBody, ConsumeBody, HoldBody, HoldHandle, Options, Outage, Person, Result, SettleOptions,
  SlackMessage, Unanswered, Used, Work,
} from "./client.js";
export { TollgateError } from "./errors.js";
export type { ErrorCode, FieldError } from "./errors.js";
export type { components, paths } from "./api.js";
