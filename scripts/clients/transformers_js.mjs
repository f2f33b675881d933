// @huggingface/transformers (transformers.js) with its int8 file, raw logits.
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { AutoModelForSequenceClassification, AutoTokenizer, env } from "@huggingface/transformers";

const asked = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = dirname(asked.folder);
const name = basename(asked.folder);
const tokenizer = await AutoTokenizer.from_pretrained(name);
const model = await AutoModelForSequenceClassification.from_pretrained(name, { dtype: "q8" });
const queries = asked.documents.map(() => asked.query);
const features = tokenizer(queries, { text_pair: asked.documents, padding: true, truncation: true });
const { logits } = await model(features);
console.log(JSON.stringify(logits.tolist().map((row) => row[0])));
