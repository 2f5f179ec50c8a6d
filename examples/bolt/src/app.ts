import bolt from "@slack/bolt";
import type { AppOptions, RespondArguments } from "@slack/bolt";
import type { Tollgate } from "tollgate-client";
import { write } from "./suggestions.js";

/** createApp returns the Slack app. It answers the slash command /suggest. */
export function createApp(tollgate: Tollgate, options: AppOptions): bolt.App {
  const app = new bolt.App(options);
  const emails = new Map<string, string>(); // by Slack user

  app.command("/suggest", async ({ command, ack, respond, client, logger }) => {
    await ack(); // within three seconds, which is how long Slack waits; respond sends the answer

    // The first call for a person needs their email, so that Tollgate can link the email to the Slack
    // user. Without the scope users:read.email, or if Slack does not answer, the call has no email.
    const user = `${command.team_id} ${command.user_id}`;
    let email = emails.get(user);
    if (!email) {
      email = await client.users.info({ user: command.user_id }).then((info) => info.user?.profile?.email, () => undefined);
      if (email) emails.set(user, email);
    }

    try {
      const d = await tollgate.withHold({
        slack_team_id: command.team_id,
        slack_user_id: command.user_id,
        ...(email ? { email } : {}),
        quantity: 1,
        idempotency_key: command.trigger_id, // the same if Slack sends this command again
      }, async () => ({ used: 1, value: await write(command.text) }));
      if (d.allowed) await respond({ response_type: "ephemeral", text: d.value });
      if (d.slack) await respond(d.slack as RespondArguments); // the warning or the refusal
    } catch (error) {
      logger.error(error);
      await respond({ response_type: "ephemeral", text: "Something went wrong. Please try again." });
    }
  });
  return app;
}
