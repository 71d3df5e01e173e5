"""What CITING's policy learns from: the teacher's revisions of its answers; for the controls, demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from tsalign.common.errors import TsalignError
from tsalign.config import WritingConfig
from tsalign.data.checks import check_rows
from tsalign.data.intake import parse
from tsalign.data.pairs import preference
from tsalign.data.shards import Row, Shard, read_counts
from tsalign.data.sources import BadRow, Message, Record, absolute, contents, read
from tsalign.data.workers import map_shards
from tsalign.engines import Completion, Failed
from tsalign.prompts.parsers import part
from tsalign.prompts.templates import render
from tsalign.recipes.citing.retrieval import instruction
from tsalign.runs.artifacts import Dataset, Endpoint, Model
from tsalign.runs.plan import PlannedStage, expected, times
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.stages.writing import Written, needs_texts, write


def conversation(template: str, prompt: Sequence[Message], rubric: str, answer: str = "") -> list[Message]:
    """A prompt whose last message is a template's, with instruction, rubric and, where there is one, an answer."""
    return [*prompt[:-1], *render(template, instruction=instruction(prompt), rubric=rubric, answer=answer)]


@dataclass(frozen=True)
class Revision:
    """Asks to revise each completion of a candidate set; each revision becomes a row to learn from.

    Attributes:
        template: of the question to the teacher.
        rewrite: of the policy's input: instruction, rubric and its own answer; None for the instruction alone.
    """

    template: str
    rewrite: str | None

    def prompts(self, row: Row) -> list[list[Message]]:
        """One question a completion."""
        return [conversation(self.template, row["prompt"], row["rubric"], draft) for draft in _drafts(row)]

    def read(self, row: Row, answers: Sequence[Completion]) -> Written:
        """Rows with `prompt` and `completion` for supervised fine-tuning, and what they were made from."""
        revisions = [part(self.template, "revision", answer.text) for answer in answers]
        pairs = list(zip(_drafts(row), revisions))
        # What stands between tags is whole, whatever was cut behind it.
        ends = [made.finish if made.text.strip() == one else "stop" for made, one in zip(answers, revisions)]
        rows = [self._row(row, index, *pair, ends[index]) for index, pair in enumerate(pairs)]
        counts = {
            "revisions": len(pairs),
            "unchanged": sum(draft == revision for draft, revision in pairs),
            "distance": sum(row["distance"] for row in rows),
            "draft_characters": sum(len(draft) for draft, _ in pairs),
            "revision_characters": sum(len(revision) for _, revision in pairs),
        }
        return Written(rows, counts=counts)

    def _row(self, row: Row, index: int, draft: str, revision: str, finish: str) -> Row:
        asked = conversation(self.rewrite, row["prompt"], row["rubric"], draft) if self.rewrite else row["prompt"]
        return {
            "prompt_id": f"{row['prompt_id']}-{index}",
            **{name: row[name] for name in ("set", "category", "rubric", "writer")},
            "instruction": row["prompt"],
            "draft": draft,
            "draft_finish": row["completions"][index]["finish"],
            "distance": Levenshtein.normalized_distance(draft, revision),
            "prompt": asked,
            "completion": revision,
            "finish": finish,
        }


def _drafts(row: Row) -> list[str]:
    return [completion["text"] for completion in row["completions"]]


@stage_function("citing/revise")
def revise(
    stage: Stage,
    teacher: Model | Endpoint,
    drafts: Dataset,
    revision: Revision,
    writing: WritingConfig,
) -> Dataset:
    """The teacher's revision of every completion; logs how much it changed.

    `edit_distance` is the mean of Levenshtein distances over characters, each divided by the longer text;
    `length_growth` is the revisions' characters over the drafts'.

    Raises:
        TsalignError: more of the teacher's texts than allowed do not parse.
    """
    made = write(stage, teacher, drafts, revision, writing)
    counts = read_counts(made)
    stage.log(
        {
            "edit_distance": counts["distance"] / counts["revisions"],
            "unchanged_share": counts["unchanged"] / counts["revisions"],
            "length_growth": counts["revision_characters"] / max(1, counts["draft_characters"]),
        }
    )
    return made


@revise.expects
def _expect_revisions(
    stage: PlannedStage,
    teacher: Model | Endpoint,
    drafts: Dataset,
    revision: Revision,
    writing: WritingConfig,
) -> Dataset:
    sets = expected(drafts)
    revisions = times(sets.rows, sets.completions)
    needs_texts(stage, teacher, writing, {"revisions": revisions})
    return stage.dataset(revisions)


@stage_function("citing/prefer")
def prefer(stage: Stage, revisions: Dataset) -> Dataset:
    """Preferences for the instruction alone: the revision over the draft, where they differ."""
    return map_shards(stage, revisions, PreferWorker, {}, stage.resources.mine)


@prefer.expects
def _expect_preferences(stage: PlannedStage, revisions: Dataset) -> Dataset:
    stage.needs("", stage.resources.mine, {"rows": expected(revisions).rows})
    return stage.derived(revisions, completions=2.0)


class PreferWorker:
    """Turns revisions into preferences."""

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        changed = [row for row in rows if row["draft"] != row["completion"]]
        return Shard([_preference(row) for row in changed], counts={"unchanged": len(rows) - len(changed)})


def _preference(row: Row) -> Row:
    revision = {"text": row["completion"], "finish": row.get("finish")}
    draft = {"text": row["draft"], "finish": row.get("draft_finish")}
    return {**preference(row["prompt_id"], row["set"], row["instruction"], revision, draft), "writer": row["writer"]}


@stage_function("citing/demonstrate")
def demonstrate(stage: Stage, prompts: Dataset, location: str, copies: int, rewrite: str | None = None) -> Dataset:
    """The demonstrations of some prompts as rows to learn from, `copies` of each: as many as there were revisions.

    Args:
        location: file whose rows have a prompt and its reply, as `completion`, `output`, or the last message.
        rewrite: template of the policy's input with a rubric; None for the instruction alone.

    Raises:
        TsalignError: more than 1 % of the prompts have no demonstration, or a row of the file has no reply.
    """
    arguments = {"location": absolute(location), "copies": copies, "rewrite": rewrite}
    return map_shards(stage, prompts, DemonstrateWorker, arguments, stage.resources.mine)


@demonstrate.reads
def _read_demonstrations(prompts: Dataset, location: str, copies: int, rewrite: str | None = None) -> dict[str, str]:
    return contents([location])


@demonstrate.expects
def _expect_demonstrations(
    stage: PlannedStage, prompts: Dataset, location: str, copies: int, rewrite: str | None = None
) -> Dataset:
    check_rows(stage.plan, "demonstrations", [location], _demonstration)
    rows = times(expected(prompts).rows, copies)
    stage.needs("", stage.resources.mine, {"rows": rows})
    return stage.dataset(rows)


class DemonstrateWorker:
    """Holds all demonstrations and finds those of a shard's prompts."""

    def __init__(self, location: str, copies: int, rewrite: str | None) -> None:
        self.replies = replies(location)
        self.copies, self.rewrite = copies, rewrite

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        found = [(row, self.replies.get(row["prompt_id"])) for row in rows]
        made = [self._row(row, copy, reply) for row, reply in found if reply for copy in range(self.copies)]
        bad = [
            Failed("no demonstration").row(row["prompt_id"], prompt=row["prompt"]) for row, reply in found if not reply
        ]
        return Shard(made, bad)

    def _row(self, row: Row, copy: int, reply: str) -> Row:
        asked = conversation(self.rewrite, row["prompt"], row["rubric"]) if self.rewrite else row["prompt"]
        return {"prompt_id": f"{row['prompt_id']}-{copy}", "set": row["set"], "prompt": asked, "completion": reply}


def replies(location: str) -> dict[str, str]:
    """Prompt id -> reply.

    Raises:
        TsalignError: a row without a prompt or a reply.
    """
    found = {}
    for record in read([location]):
        try:
            prompt_id, reply = _demonstration(record)
        except BadRow as error:
            raise TsalignError(f"{record.file}:{record.line}: {error}.") from None
        found[prompt_id] = reply
    return found


def _demonstration(record: Record) -> tuple[str, str]:
    prompt = parse(record, None)
    if not (reply := _reply_of(record.row)):
        raise BadRow("no reply; expected completion or output, or messages that end with it")
    return prompt.prompt_id, reply


def _reply_of(row: Row) -> str | None:
    messages = row.get("messages") or row.get("completion")
    if isinstance(messages, list) and messages and messages[-1].get("role") == "assistant":
        return str(messages[-1]["content"])
    return next((row[name] for name in ("completion", "output") if isinstance(row.get(name), str)), None)
