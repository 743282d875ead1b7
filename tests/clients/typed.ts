// What `tsc --strict` lets through, and after each @ts-expect-error what it must not.
import { Client, ServiceError, type RecommendAnswer, type TellEvent } from "../../clients/typescript/recops.js";

export async function typed(): Promise<string | null> {
  const client = new Client("http://127.0.0.1:3000", { apiKey: "key", retries: { maxRetries: 2 } });
  const history: readonly string[] = ["a"];
  const answer: RecommendAnswer = await client.recommend({ history, k: 5, filters: { price: { max: 3 } } });
  const click: TellEvent = { user_id: "u", item_id: "a", event: "click", timestamp: new Date() };
  const told = await client.events({ events: [click] }, { timeoutMs: 500 });
  const stored: number = told.stored;
  const ready: boolean = (await client.readyz()).ready;
  const text: string = await client.metrics({ signal: AbortSignal.timeout(1000) });
  for (const reason of answer.items[0]?.reasons ?? []) {
    if (reason.type === "history") console.log(reason.item_id, reason.share);
  }
  try {
    await client.erase_user({ user_id: "u" });
  } catch (error) {
    if (error instanceof ServiceError && error.status === 403) console.log(error.field, stored, ready, text);
  }
  // @ts-expect-error: no such field
  await client.recommend({ user: "u" });
  // @ts-expect-error: k is a number
  await client.recommend({ user_id: "u", k: "5" });
  // @ts-expect-error: an event has a time
  await client.events({ events: [{ user_id: "u", item_id: "a", event: "click" }] });
  // @ts-expect-error: whose data it is must be given
  await client.user();
  // @ts-expect-error: the answer has no such part
  answer.items[0]?.price;
  // @ts-expect-error: a title may be missing
  const title: string = answer.items[0]!.title;
  return title;
}
