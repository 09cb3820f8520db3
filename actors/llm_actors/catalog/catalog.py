"""The catalog: the models that the providers offer, and the candidates that a request's ``model`` names. Pure.

A model name is resolved in this order:

1. ``provider/model``, if ``provider`` is configured. The model need not be in the provider's list, because lists are
   often incomplete. Only the list of the local model is complete.
2. A name without a provider, if one or more providers list it.
3. ``auto``: the default model of each suitable provider.

Any other name is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, date, datetime
from typing import final

import msgspec

from llm_actors.catalog.allowed import Allowed
from llm_actors.deployment import Candidate
from llm_protocol.codec.wording import suggestion
from llm_protocol.dialect import ModelInfo
from llm_protocol.errors import ModelNotFoundError, UnsupportedError
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.lifecycle import ending, is_gone, shutdown_date
from llm_protocol.model_rules import ModelRules
from llm_protocol.preferences import Want, choose, want_of
from llm_protocol.requests import AUTO, AnyRequest, RequestType
from llm_protocol.vendor import Vendor

NAMES_SHOWN = 8
"""The most model names in one error."""


def utc_today() -> date:
    """Return the current day in UTC."""
    return datetime.now(UTC).date()


class _Offer:
    __slots__ = ("chosen", "configured", "kind", "listed", "models", "request_types", "rules", "vendor")

    def __init__(
        self, vendor: Vendor, rules: ModelRules | None, request_types: frozenset[RequestType], models: Sequence[str]
    ) -> None:
        self.vendor = vendor
        self.kind = vendor.facts_key
        """The key under which facts about a model are stored."""
        self.rules = rules or ModelRules(self.kind)
        self.request_types = request_types
        self.models = {model: ModelInfo(id=model) for model in models}
        self.chosen: dict[tuple[Want, date], str | None] = {}
        """The default model for each need and day, kept until the list changes."""
        self.configured = self.listed = bool(models)


@final
class Catalog:
    """The models of all providers. Only the catalog actor changes it. ``today`` returns the current day in UTC."""

    def __init__(self, today: Callable[[], date] = utc_today) -> None:
        self._offers: dict[str, _Offer] = {}
        self._today = today

    def add(
        self,
        name: str,
        vendor: Vendor,
        request_types: frozenset[RequestType],
        models: Sequence[str] = (),
        rules: ModelRules | None = None,
    ) -> None:
        """Add a provider. With ``models``, it offers only those; the first that has not been shut down is its default.
        ``rules`` are the provider's model rules. Facts from the vendor's list are added to them.
        """
        self._offers[name] = _Offer(vendor, rules, request_types, models)

    def carry_over(self, name: str, former: Catalog) -> None:
        """Add a provider with everything that ``former`` knows about it."""
        self._offers[name] = former._offers[name]

    def update(self, name: str, models: Iterable[ModelInfo]) -> None:
        """Replace the list of a provider's models with a new one from its vendor."""
        offer = self._offers[name]
        offer.models = {model.id: model for model in models}
        offer.rules.learn({model.id: model.facts() for model in offer.models.values()})
        offer.chosen.clear()
        offer.configured, offer.listed = False, True

    @property
    def unlisted(self) -> tuple[str, ...]:
        """The providers whose models are not known yet."""
        return tuple(name for name, offer in self._offers.items() if not offer.listed)

    def models(self) -> dict[str, list[str]]:
        """Return the models of each provider. The list is empty if the models could not be listed."""
        return {name: list(offer.models) for name, offer in self._offers.items()}

    def infos(self, allowed: Allowed | None = None) -> list[ModelInfo]:
        """Return all models, or those that are ``allowed``, with ids of the form ``provider/model``. Sizes and
        shutdown dates that the vendor's list does not have are added from the configuration and the shipped tables.
        """
        return [
            _known_as(name, offer, info)
            for name, offer in self._offers.items()
            for info in offer.models.values()
            if _may(allowed, name, info.id)
        ]

    def ending(self, candidate: Candidate) -> str | None:
        """Return when the candidate will be shut down, as the end of a sentence; ``None`` if that is further away than
        `llm_protocol.lifecycle.NOTICE`.
        """
        offer = self._offers.get(candidate.provider)
        if offer is None:
            return None
        return ending(offer.kind, offer.models.get(candidate.model, ModelInfo(id=candidate.model)), self._today())

    def all_ending(self) -> list[tuple[Candidate, str]]:
        """Return the models that will be shut down within `NOTICE` or are deprecated, configured ones first, then by
        date. A model that was shut down is included only if it is configured.
        """
        today = self._today()
        found = [
            (not offer.configured, shutdown_date(offer.kind, info) or date.max, Candidate(name, info.id), words)
            for name, offer in self._offers.items()
            for info in offer.models.values()
            if (words := ending(offer.kind, info, today)) and (offer.configured or not is_gone(offer.kind, info, today))
        ]
        return [(candidate, words) for *_, candidate, words in sorted(found)]

    def context_window(self, candidate: Candidate) -> int | None:
        """Return the context window of the candidate in tokens; ``None`` if it is unknown."""
        offer = self._offers.get(candidate.provider)
        return offer.rules.of(candidate.model).context_window if offer else None

    def accepts_prefill(self, candidate: Candidate) -> bool:
        """Return whether the candidate continues a partial response at the end of a conversation."""
        offer = self._offers.get(candidate.provider)
        return offer is not None and offer.rules.of(candidate.model).prefill

    def accepts_foreign_reasoning(self, candidate: Candidate) -> bool:
        """Return whether the candidate accepts earlier turns with the reasoning of another model or account."""
        offer = self._offers.get(candidate.provider)
        return offer is None or offer.rules.of(candidate.model).replay == "always"

    def may_draw(self, name: str) -> bool:
        """Return whether a model of this name may respond to a chat with images. ``name`` may begin with a provider."""
        head, _, rest = name.partition("/")
        if head in self._offers:
            return self._offers[head].rules.of(rest).draws
        return any(offer.rules.of(name).draws for offer in self._offers.values())

    def vendor(self, candidate: Candidate) -> str:
        """Return the name of the candidate's vendor, which is the same for two providers at one vendor. A server that
        is only compatible with a vendor's API counts as a separate vendor, named like the provider.
        """
        offer = self._offers.get(candidate.provider)
        return candidate.provider if offer is None or offer.vendor.generic else offer.vendor.kind

    def resolve(
        self, request: AnyRequest, allowed: Allowed | None = None, routes: Collection[str] = ()
    ) -> list[Candidate]:
        """Return the candidates for ``request``, in the order of the configuration. With ``allowed``, other models do
        not exist. ``routes`` are the names of routes that the error for an unknown model may suggest.

        The result is never empty. Raises `ModelNotFoundError`, or `UnsupportedError` if none of the providers with the
        model supports this type of request.
        """
        found = self._named(request, allowed)
        if allowed is not None:
            found = [each for each in found if allowed.permits(*each)]
        suitable = [each for each in found if request.request_type in self._offers[each.provider].request_types]
        if suitable:
            return suitable
        if found:
            raise UnsupportedError(self._unable(found[0].provider, request.request_type, allowed))
        raise ModelNotFoundError(self._unknown(request, allowed, routes))

    def _named(self, request: AnyRequest, allowed: Allowed | None) -> list[Candidate]:
        model, hint = request.model or AUTO, request.provider
        head, slash, rest = model.partition("/")
        if slash and rest and hint in (None, head) and self._may_have(head, rest):
            return [Candidate(head, rest)]
        names = [name for name in self._offers if hint in (None, name)]
        if model == AUTO:
            return self._chosen(names, request, allowed)
        found = [Candidate(name, model) for name in names if model in self._offers[name].models]
        if not found and hint is not None and self._may_have(hint, model):
            return [Candidate(hint, model)]
        return found

    def _chosen(self, names: Iterable[str], request: AnyRequest, allowed: Allowed | None) -> list[Candidate]:
        """Return the default model of each provider. For embeddings, return only candidates with the same model as the
        first. Local models are left out if there are others.
        """
        choice = [Candidate(name, default) for name in names if (default := self._default(name, request, allowed))]
        if request.request_type is RequestType.EMBEDDING:  # embeddings of different models cannot be compared
            return [each for each in choice if each.model == choice[0].model]
        # The local model is for first experiments: any other provider is preferred.
        return [each for each in choice if not self._offers[each.provider].vendor.local] or choice

    def _may_have(self, name: str, model: str) -> bool:
        offer = self._offers.get(name)
        if offer is None:
            return False
        return model in offer.models or not offer.listed or not offer.vendor.local

    def _default(self, name: str, request: AnyRequest, allowed: Allowed | None) -> str | None:
        offer = self._offers[name]
        if request.request_type not in offer.request_types:
            return None
        want, today = want_of(request), self._today()
        if allowed is None and (want, today) in offer.chosen:
            return offer.chosen[want, today]
        models = [info for info in offer.models.values() if _may(allowed, name, info.id)]
        info = choose(offer.vendor, offer.rules, want, models, today, in_order=offer.configured)
        chosen = info.id if info else None
        if allowed is None:
            # bounded: a few dozen entries a day, and a new list clears them
            offer.chosen[want, today] = chosen
        return chosen

    def _unable(self, name: str, request_type: RequestType, allowed: Allowed | None) -> Failure:
        suitable = [
            other
            for other, offer in self._offers.items()
            if request_type in offer.request_types
            and (allowed is None or any(allowed.permits(other, model) for model in offer.models))
        ]
        tail = f"; these providers do: {', '.join(suitable)}" if suitable else "; no configured provider does"
        what = request_type.value.replace("_", " ")
        return Failure(
            kind=FailureKind.UNSUPPORTED,
            message=f"{name} ({self._offers[name].vendor.kind}) does not support {what} requests{tail}",
            param="model",
            provider=name,
        )

    def near(self, candidate: Candidate) -> str:
        """Return text for an error: ``; did you mean "x"?`` if the provider does not list the model but lists ``x``, a
        similar name; else an empty string.
        """
        listed = self._offers[candidate.provider].models
        return "" if candidate.model in listed else suggestion(candidate.model, listed)

    def _unknown(self, request: AnyRequest, allowed: Allowed | None, routes: Collection[str]) -> Failure:
        if not self._offers:
            text = "no provider is configured: set a key such as OPENAI_API_KEY in the environment, or give a "
            text += "configuration file"
        elif (request.model or AUTO) == AUTO:
            text = f"no configured provider offers a model for {request.request_type.value.replace('_', ' ')} requests"
            if self.unlisted and allowed is None:
                text += f"; the models of these providers could not be listed: {', '.join(self.unlisted[:NAMES_SHOWN])}"
        else:
            known = [info.id for info in self.infos(allowed)]
            shown = ", ".join(known[:NAMES_SHOWN]) + (
                f" and {len(known) - NAMES_SHOWN} more" * (len(known) > NAMES_SHOWN)
            )
            names = [name for each in known for name in (each, each.partition("/")[2])]
            names += [name for name in routes if allowed is None or allowed.permits_route(name)]
            near = suggestion(request.model, names)
            text = f"there is no model {request.model[:100]!r}{near}"
            text += f"{'' if near else ';'} known models: {shown or 'none yet'}; or name one as provider/model"
        return Failure(kind=FailureKind.MODEL_NOT_FOUND, message=text, param="model")


def _may(allowed: Allowed | None, provider: str, model: str) -> bool:
    return allowed is None or allowed.permits(provider, model)


def _known_as(provider: str, offer: _Offer, info: ModelInfo) -> ModelInfo:
    end, rule = shutdown_date(offer.kind, info), offer.rules.of(info.id)
    return msgspec.structs.replace(
        info,
        id=f"{provider}/{info.id}",
        owned_by=info.owned_by or provider,
        lifecycle="deprecated" if end is not None and info.lifecycle == "active" else info.lifecycle,
        shutdown_date=end,
        context_window=rule.context_window,
        max_output_tokens=rule.max_output_tokens,
    )
