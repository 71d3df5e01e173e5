"""Whether a model's id is on the Hugging Face Hub, asked once before a run."""

from __future__ import annotations

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

from tsalign.common.errors import TsalignError

SECONDS = 5.0


def check_hub(model: str, revision: str | None) -> None:
    """Nothing, where a model is in the cache of this machine or on the Hub, or where the Hub cannot be asked.

    Raises:
        TsalignError: there is no such model or revision, it is not open to this token, or this machine is offline
            by its own setting and does not have it.
    """
    if isinstance(try_to_load_from_cache(model, "config.json", revision=revision), str):
        return
    if constants.HF_HUB_OFFLINE:
        raise TsalignError(f"{model}: not in the cache of this machine, and HF_HUB_OFFLINE is set; download it first.")
    try:
        get_hf_file_metadata(hf_hub_url(model, "config.json", revision=revision), timeout=SECONDS)
    except GatedRepoError as error:
        raise TsalignError(f"{model}: a gated model; ask for access on its page and set HF_TOKEN.") from error
    except RepositoryNotFoundError as error:
        raise TsalignError(
            f"{model}: no such folder here and no such model on the Hub, or a private one; check it, or set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise TsalignError(f"{model}: has no revision {revision}; expected a branch, a tag or a commit.") from error
    except (HTTPError, OSError):  # the Hub cannot be asked from here: what loads the model will tell
        return
