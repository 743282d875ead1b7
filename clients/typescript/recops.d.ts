// Made by `python -m clients` from the service's OpenAPI; not to be changed by hand.
import { CallOptions, Http } from "./http.js";
export * from "./http.js";

export interface AskItem {
  item_id: string;
  rank: number;
  score: number;
  title: string | null;
  /** Made of facts, never by a language model. */
  reason: string;
}

export interface AskAnswer {
  answer: string;
  items: Array<AskItem>;
  /** What the question was understood to ask for. */
  understood: Record<string, unknown>;
  /** Signals the list was made from. */
  retrieved_by: Array<string>;
  phrased_by: "template" | "language model";
  release: string;
  request_id: string;
  source: "model" | "cold-start" | "fallback";
}

export interface HistoryEvent {
  /** Id of an item, as in the log. */
  item_id: string;
  /** ISO 8601 with a zone, or milliseconds since 1970. */
  timestamp?: Date | string | number | null;
}

/** A question asked before, and what was shown for it. */
export interface Turn {
  question: string;
  /** Ids of the items of its answer, in their order. */
  items: ReadonlyArray<string>;
}

/** Without user_id and history the answer is for somebody nothing is known of. */
export interface Ask {
  /** Id of a user, as in the log. */
  user_id?: string | null;
  /** Oldest first; sorted by time where every event has one. May be empty. */
  history?: ReadonlyArray<string | HistoryEvent> | null;
  question: string;
  /** Length of the list. */
  k?: number;
  /** Oldest first. Nothing of it is kept: the next call brings it again. */
  conversation?: ReadonlyArray<Turn> | null;
  /** Keep which items were shown, as for a recommendation; never the words. */
  log?: boolean;
}

export interface EventsRejected {
  index: number;
  reason: string;
}

export interface EventsAnswer {
  stored: number;
  /** Were there already, by event_id. */
  duplicates: number;
  rejected: Array<EventsRejected>;
  request_id: string;
}

/** An event of the events table. Without `event_id` one is made of user, item, time, event and value. */
export interface TellEvent {
  /** Id of a user, as in the log. */
  user_id: string;
  /** Id of an item, as in the log. */
  item_id: string;
  /** Kind of event, such as click or purchase; impression: the item was seen. */
  event: string;
  /** ISO 8601 with a zone, or milliseconds since 1970. */
  timestamp: Date | string | number;
  /** Kept in 32 bits. */
  value?: number | null;
  event_id?: string | null;
  /** Of the answer that showed the item. */
  request_id?: string | null;
  /** Where it stood in that answer. */
  rank?: number | null;
  session_id?: string | null;
  context?: Record<string, string | number | boolean | ReadonlyArray<string | number | boolean | null> | null> | null;
}

export interface Events {
  events: ReadonlyArray<TellEvent>;
}

export interface LivezAnswer {
  live: boolean;
}

export interface ReadyzAnswer {
  ready: boolean;
  release: string;
}

export interface ItemsNotRecommendable {
  item_id: string;
  reason: string;
}

export interface ItemsAnswer {
  added: number;
  changed: number;
  /** On disk, and in use shortly; nothing need be sent again. */
  pending: number;
  not_recommendable: Array<ItemsNotRecommendable>;
  release: string;
  request_id: string;
}

/** The columns of the items table; what is not given stays as it is, null takes it away. */
export interface NewItem {
  /** Id of an item, as in the log. */
  item_id: string;
  title?: string | null;
  text?: string | null;
  categories?: ReadonlyArray<string> | null;
  /** Path in the source's folder, or an address. */
  image?: string | null;
  /** ISO 8601 with a zone, or milliseconds since 1970. */
  published_at?: Date | string | number | null;
  price?: number | null;
  available?: boolean | null;
  attributes?: Record<string, string | number | boolean | ReadonlyArray<string | number | boolean | null> | null> | null;
}

export interface Items {
  items: ReadonlyArray<NewItem>;
}

/** An item of the history without which the score would be lower. Shares are of the items left out in turn. */
export interface RecommendItemReasonHistory {
  type: "history";
  item_id: string;
  title: string | null;
  /** Of what speaks for the item. */
  share: number;
  text: string;
}

/** What the items of the history that carry this one share with it. Its share counts theirs a second time. */
export interface RecommendItemReasonAttribute {
  type: "attribute";
  name: string;
  value: string;
  /** Of what speaks for the item. */
  share: number;
  text: string;
}

/** The model reads the user from a table learnt in training. The item named is near in it and carried nothing. */
export interface RecommendItemReasonTaste {
  type: "taste";
  item_id?: string;
  title?: string | null;
  similarity?: number;
  text: string;
}

/** What speaks for the item is how many choose it, or how they rate it. */
export interface RecommendItemReasonPopular {
  type: "popular";
  text: string;
}

export interface RecommendItemMoved {
  rule: string;
  from: number;
  to: number;
}

export interface RecommendItem {
  item_id: string;
  rank: number;
  score: number;
  title: string | null;
  reasons?: Array<RecommendItemReasonHistory | RecommendItemReasonAttribute | RecommendItemReasonTaste | RecommendItemReasonPopular>;
  /** The rules that gave the item another rank, in their order; left out where none did. */
  moved?: Array<RecommendItemMoved>;
}

export interface RecommendAnswer {
  items: Array<RecommendItem>;
  release: string;
  variant: string;
  request_id: string;
  source: "model" | "cold-start" | "fallback";
}

export interface PriceRange {
  /** Lowest price, inclusive. */
  min?: number | null;
  /** Highest price, inclusive. */
  max?: number | null;
}

export interface Filters {
  /** Value, or list of values, by name of the attribute. */
  attributes?: Record<string, string | number | boolean | ReadonlyArray<string | number | boolean>> | null;
  available?: boolean | null;
  /** Any of these. */
  categories?: ReadonlyArray<string> | null;
  price?: PriceRange | null;
  /** ISO 8601 with a zone, or milliseconds since 1970. */
  published_after?: Date | string | number | null;
}

export interface Recommend {
  /** Id of a user, as in the log. */
  user_id?: string | null;
  /** Oldest first; sorted by time where every event has one. May be empty. */
  history?: ReadonlyArray<string | HistoryEvent> | null;
  /** 0: by score alone; 1: as unlike as can be. Else what the service is set to. */
  diversity?: number | null;
  /** Item ids that must not be shown. */
  exclude?: ReadonlyArray<string> | null;
  /** Length of the list. */
  k?: number;
  filters?: Filters | null;
  /** Add to each item the reasons why it stands there. */
  explain?: boolean;
}

export interface RecommendBatchAnswer {
  responses: Array<RecommendAnswer>;
}

export interface RecommendBatch {
  requests: ReadonlyArray<Recommend>;
}

export interface ReleaseTraffic {
  name: string;
  release: string;
  mode: "shadow" | "canary" | "ab";
  share: number;
  halted: string | null;
  /** In this worker. */
  loaded: boolean;
}

export interface ReleaseAnswer {
  release: string;
  variant: string;
  num_items: number;
  /** Added or changed since the export. */
  online_items: number;
  model: string;
  metrics: Record<string, unknown>;
  data_watermark: string | null;
  fitted_until: string | null;
  remove_seen: boolean;
  opset: number | null;
  format_version: number;
  promoted_at: string | null;
  commit: string | null;
  traffic: Array<ReleaseTraffic>;
  request_id: string;
}

export interface ScoreScore {
  item_id: string;
  score: number | null;
}

export interface ScoreAnswer {
  scores: Array<ScoreScore>;
  source: "model" | "cold-start" | "fallback";
  release: string;
  request_id: string;
}

export interface Score {
  /** Id of a user, as in the log. */
  user_id?: string | null;
  /** Oldest first; sorted by time where every event has one. May be empty. */
  history?: ReadonlyArray<string | HistoryEvent> | null;
  item_ids: ReadonlyArray<string>;
}

export interface SimilarItem {
  item_id: string;
  rank: number;
  score: number;
  title: string | null;
}

export interface SimilarAnswer {
  items: Array<SimilarItem>;
  source: "links" | "vectors" | "categories";
  release: string;
  request_id: string;
}

export interface Similar {
  /** Item ids that must not be shown. */
  exclude?: ReadonlyArray<string> | null;
  /** Id of an item, as in the log. */
  item_id: string;
  /** Length of the list. */
  k?: number;
  filters?: Filters | null;
}

export interface TrafficArmVariant {
  variant: string;
  releases: Array<string>;
  users: number;
  answers: number;
  anonymous: number;
  instead: number;
  events: number;
  hit_rate: number;
  conversion_rate: number;
  ndcg: number;
  fallback_share: number;
  empty_share: number;
  overlap: number | null;
}

export interface TrafficArmDifferenceHitRate {
  value: number;
  low: number | null;
  high: number | null;
}

export interface TrafficArmDifference {
  hit_rate: TrafficArmDifferenceHitRate;
  conversion_rate: TrafficArmDifferenceHitRate;
  ndcg: TrafficArmDifferenceHitRate;
  fallback_share: TrafficArmDifferenceHitRate;
  empty_share: TrafficArmDifferenceHitRate;
}

export interface TrafficArm {
  name: string;
  release: string;
  mode: "shadow" | "canary" | "ab";
  share: number;
  since: number;
  until: number | null;
  halted: string | null;
  variants: Array<TrafficArmVariant>;
  differences: TrafficArmDifference;
}

export interface TrafficAnswer {
  arms: Array<TrafficArm>;
  request_id: string;
}

export interface SetTrafficArmGuardrail {
  metric: string;
  margin: number;
}

export interface SetTrafficArm {
  name: string;
  release: string;
  mode: "shadow" | "canary" | "ab";
  share: number;
  since: number;
  until: number | null;
  halted: string | null;
  at: number | null;
  guardrails: Array<SetTrafficArmGuardrail>;
}

export interface SetTrafficAnswer {
  arms: Array<SetTrafficArm>;
  request_id: string;
}

/** A canary is halted once its users are proven to do worse than the others by more than `margin`. */
export interface Guardrail {
  metric?: "hit_rate" | "conversion_rate" | "fallback_share" | "empty_share";
  /** Share of the served release's figure that may be lost. */
  margin?: number;
}

/** One challenger. `shadow`: asked as well, logged, never shown; its share is of calls. `canary`: shown to a share
of users, and halted by its guardrails. `ab`: shown to a share of users until somebody ends it. */
export interface Arm {
  name: string;
  release: string;
  mode: "shadow" | "canary" | "ab";
  share?: number;
  /** Where its share of users begins; none: where there is room. */
  at?: number | null;
  /** Microseconds since 1970: what was answered before is of no concern. */
  since?: number;
  /** Microseconds since 1970, where it was halted: nor what was after. */
  until?: number | null;
  guardrails?: ReadonlyArray<Guardrail>;
  /** Why it is no longer shown. */
  halted?: string | null;
}

export interface Arms {
  /** All challengers; those that are not named answer no longer. */
  arms: ReadonlyArray<Arm>;
}

export interface UserEvent {
  event_id: string;
  item_id: string;
  timestamp: string;
  received_at: string;
  event: string;
  value: number | null;
  request_id: string | null;
  rank: number | null;
  session_id: string | null;
  context: Record<string, unknown> | null;
}

export interface UserHeld {
  events: number;
  answers: number;
  histories: Record<string, number>;
  model: boolean;
}

export interface UserAnswer {
  user_id: string;
  events: Array<UserEvent>;
  /** `before` of the next page; null on the last. */
  next: string | null;
  held: UserHeld;
  request_id: string;
}

export interface User {
  /** Id of a user, as in the log. */
  user_id: string;
  /** Events at most. */
  limit?: number;
  /** An event_id of the user, else a time: only events before it. */
  before?: string | null;
}

export interface EraseUserErased {
  events: number;
  answers: number;
  histories: number;
}

export interface EraseUserAnswer {
  erased: EraseUserErased;
  request_id: string;
}

export interface EraseUser {
  /** Id of a user, as in the log. */
  user_id: string;
}

export class Client extends Http {
  /** A question in words, answered by items of the catalogue. */
  ask(request: Ask, options?: CallOptions): Promise<AskAnswer>;
  /** This page. */
  docs(options?: CallOptions): Promise<string>;
  /** This description as OpenAPI 3.1. */
  docs_json(options?: CallOptions): Promise<Record<string, unknown>>;
  /** The same. */
  openapi_json(options?: CallOptions): Promise<Record<string, unknown>>;
  /** What users did: on disk once this answers, and part of their histories at once. */
  events(request: Events, options?: CallOptions): Promise<EventsAnswer>;
  /** 200 while the process answers. */
  livez(options?: CallOptions): Promise<LivezAnswer>;
  /** 200 once a release is loaded and warmed up; 503 before, and when told to end. */
  readyz(options?: CallOptions): Promise<ReadyzAnswer>;
  /** Add items to the served release, or change them; a column that is not given stays as it is. */
  items(request: Items, options?: CallOptions): Promise<ItemsAnswer>;
  /** Figures for Prometheus. */
  metrics(options?: CallOptions): Promise<string>;
  /** The best items for a user or a history. */
  recommend(request: Recommend, options?: CallOptions): Promise<RecommendAnswer>;
  /** Lists for up to 256 users at once. */
  recommend_batch(request: RecommendBatch, options?: CallOptions): Promise<RecommendBatchAnswer>;
  /** What is served and where it came from. */
  release(options?: CallOptions): Promise<ReleaseAnswer>;
  /** A score for each item, null for an unknown one, in the order asked. */
  score(request: Score, options?: CallOptions): Promise<ScoreAnswer>;
  /** The items nearest to one item that the filters let through; 404 for an item the release does not know. */
  similar(request: Similar, options?: CallOptions): Promise<SimilarAnswer>;
  /** Challengers, and what came of what they and the served release showed. */
  traffic(options?: CallOptions): Promise<TrafficAnswer>;
  /** Set which challengers answer beside the served release: in shadow, as canary, or in an A/B test. */
  set_traffic(request: Arms, options?: CallOptions): Promise<SetTrafficAnswer>;
  /** What is held about a user: events told, newest first, and how much lies elsewhere. */
  user(request: User, options?: CallOptions): Promise<UserAnswer>;
  /** Erase a user: from the store at once, and from the next training. */
  erase_user(request: EraseUser, options?: CallOptions): Promise<EraseUserAnswer>;
}
