// Made by `python -m clients` from the service's OpenAPI; not to be changed by hand.
import { Http } from "./http.js";
export * from "./http.js";

export class Client extends Http {
  /** A question in words, answered by items of the catalogue. */
  ask(request, options) {
    return this.call(["POST", "/ask", "always", false], request, options);
  }
  /** This page. */
  docs(options) {
    return this.call(["GET", "/docs", "always", true], undefined, options);
  }
  /** This description as OpenAPI 3.1. */
  docs_json(options) {
    return this.call(["GET", "/docs.json", "always", false], undefined, options);
  }
  /** The same. */
  openapi_json(options) {
    return this.call(["GET", "/openapi.json", "always", false], undefined, options);
  }
  /** What users did: on disk once this answers, and part of their histories at once. */
  events(request, options) {
    return this.call(["POST", "/events", "always", false], request, options);
  }
  /** 200 while the process answers. */
  livez(options) {
    return this.call(["GET", "/livez", "never", false], undefined, options);
  }
  /** 200 once a release is loaded and warmed up; 503 before, and when told to end. */
  readyz(options) {
    return this.call(["GET", "/readyz", "never", false], undefined, options);
  }
  /** Add items to the served release, or change them; a column that is not given stays as it is. */
  items(request, options) {
    return this.call(["POST", "/items", "always", false], request, options);
  }
  /** Figures for Prometheus. */
  metrics(options) {
    return this.call(["GET", "/metrics", "always", true], undefined, options);
  }
  /** The best items for a user or a history. */
  recommend(request, options) {
    return this.call(["POST", "/recommend", "always", false], request, options);
  }
  /** Lists for up to 256 users at once. */
  recommend_batch(request, options) {
    return this.call(["POST", "/recommend/batch", "always", false], request, options);
  }
  /** What is served and where it came from. */
  release(options) {
    return this.call(["GET", "/release", "always", false], undefined, options);
  }
  /** A score for each item, null for an unknown one, in the order asked. */
  score(request, options) {
    return this.call(["POST", "/score", "always", false], request, options);
  }
  /** The items nearest to one item that the filters let through; 404 for an item the release does not know. */
  similar(request, options) {
    return this.call(["POST", "/similar", "always", false], request, options);
  }
  /** Challengers, and what came of what they and the served release showed. */
  traffic(options) {
    return this.call(["GET", "/admin/traffic", "always", false], undefined, options);
  }
  /** Set which challengers answer beside the served release: in shadow, as canary, or in an A/B test. */
  set_traffic(request, options) {
    return this.call(["POST", "/admin/traffic", "refused", false], request, options);
  }
  /** What is held about a user: events told, newest first, and how much lies elsewhere. */
  user(request, options) {
    return this.call(["GET", "/users/{user_id}", "always", false], request, options);
  }
  /** Erase a user: from the store at once, and from the next training. */
  erase_user(request, options) {
    return this.call(["DELETE", "/users/{user_id}", "always", false], request, options);
  }
}
