"""Log-prob under three prompts, entropies and both divergences of each answer token, the plain way: log-softmax of all logits."""
from common import answer, clock, job, model, padded, rows

import torch

network = model().eval()
pairs = rows(job["signals"])


@torch.inference_mode()
def distributions(some, prompt):
    """Log-probs [answers, T, V] and, for each answer, the positions that predict it."""
    whole = [row[prompt] + answer_ids for row in some for answer_ids in row["answers"]]
    ids, mask = padded(whole)
    log_probs = torch.log_softmax(network(input_ids=ids, attention_mask=mask, use_cache=False).logits, -1)
    starts = [len(row[prompt]) - 1 for row in some for _ in row["answers"]]
    return log_probs, starts


@torch.inference_mode()
def signals(some):
    p_all, p_starts = distributions(some, "clean")
    q_all, q_starts = distributions(some, "noised")
    e_all, e_starts = distributions(some, "empty")
    out = []
    for i, ids in enumerate(ids for row in some for ids in row["answers"]):
        n, at = len(ids), torch.tensor(ids, device=job["device"])[:, None]
        p, q, e = (x[i, s:s + n] for x, s in ((p_all, p_starts[i]), (q_all, q_starts[i]), (e_all, e_starts[i])))
        gathered = [x.gather(1, at)[:, 0].tolist() for x in (p, q, e)]
        entropies = [(-(x.exp() * x).sum(-1)).tolist() for x in (p, q)]
        divergences = [(p.exp() * (p - q)).sum(-1).tolist(), (q.exp() * (q - p)).sum(-1).tolist()]
        out.append(gathered + entropies + divergences)
    return out


signals(pairs[:1])
seconds = clock()
found = [one for at in range(0, len(pairs), job["batch"]) for one in signals(pairs[at:at + job["batch"]])]
answer(done=len(pairs), seconds=seconds(), first=found[0][0])
