"""SASRec of RecBole, run by its own environment: `python recbole_sasrec.py SPEC.json OUT`.

RecBole makes an example of each prefix of a history, so an epoch takes about an hour here. What is measured is its own
step (loss, gradient, optimizer) on its own batches until the CPU seconds are used up, then its lists.
Writes what `rectools_sasrec.py` writes, with that one line.
"""

import json
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.utils import init_seed
from recbole.utils.case_study import full_sort_scores

SPEC = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
OUT = Path(sys.argv[2])


def main() -> None:
    torch.set_num_threads(1)
    folder = OUT / "log"
    folder.mkdir(parents=True)
    events = pd.read_csv(SPEC["events"], dtype=str)
    histories = events.groupby("user", sort=False)["item"].agg(list).to_dict()
    # It judges by the last item of each user: one that is never looked at stands there.
    last = events.groupby("user", sort=False).tail(1)
    events = pd.concat([events, last.assign(item=events["item"].iloc[0])]).reset_index(drop=True)
    events["timestamp"] = range(len(events))
    events.columns = ["user_id:token", "item_id:token", "timestamp:float"]
    events.to_csv(folder / "log.inter", sep="\t", index=False)
    config = Config(
        model=SASRec,
        dataset="log",
        config_dict={
            "data_path": str(OUT),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "seed": SPEC["seed"],
            "use_gpu": False,
            "n_layers": SPEC["num_blocks"],
            "n_heads": SPEC["num_heads"],
            "hidden_size": SPEC["embedding_dim"],
            "inner_size": SPEC["embedding_dim"],
            "hidden_dropout_prob": SPEC["dropout"],
            "attn_dropout_prob": SPEC["dropout"],
            "MAX_ITEM_LIST_LENGTH": SPEC["max_history"],
            "loss_type": "CE",
            "train_neg_sample_args": None,
            "learning_rate": 1e-3,
            "train_batch_size": 128,
            "eval_args": {"split": {"LS": "valid_only"}, "order": "TO", "mode": "full", "group_by": "user"},
            "checkpoint_dir": str(OUT),
            "show_progress": False,
        },
    )
    init_seed(SPEC["seed"], True)
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    model = SASRec(config, train.dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["learning_rate"])
    model.train()
    targets, started = 0, time.process_time()
    while (seconds := time.process_time() - started) < SPEC["cpu_seconds"]:
        for batch in train:
            optimizer.zero_grad()
            model.calculate_loss(batch).backward()
            optimizer.step()
            targets += len(batch)
            seconds = time.process_time() - started
            if seconds >= SPEC["cpu_seconds"]:
                break
    model.eval()
    users = json.loads(Path(SPEC["users"]).read_text(encoding="utf-8"))
    lists = {}
    seen = {user: dataset.token2id("item_id", list(items)) for user, items in histories.items()}
    for start in range(0, len(users), 200):
        some = users[start : start + 200]
        with torch.no_grad():
            scores = full_sort_scores(dataset.token2id("user_id", some), model, valid, device="cpu")
        scores[:, 0] = -torch.inf
        for row, user in zip(scores, some, strict=True):
            row[seen[user]] = -torch.inf
        for user, best in zip(some, scores.topk(10).indices, strict=True):
            lists[user] = dataset.id2token("item_id", best.numpy()).tolist()
    (OUT / "1.json").write_text(json.dumps(lists), encoding="utf-8")
    row = {"epoch": 1, "cpu_seconds": seconds, "targets": targets}
    (OUT / "epochs.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
