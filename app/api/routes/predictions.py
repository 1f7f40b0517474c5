"""Images in, labels out."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from torch import Tensor

from torchlight.app.api.dependencies import Coverage, RunningService, TopK
from torchlight.app.api.disconnect import while_connected
from torchlight.app.api.problems import describe_problem, document_problems, find_problem
from torchlight.app.api.schemas import (
    BatchPrediction,
    BatchProblem,
    BatchResponse,
    PredictionBody,
    PredictResponse,
    Timing,
)
from torchlight.app.api.summaries import describe_unknown, summarise_image, summarise_model
from torchlight.app.api.uploads import Upload, document_image_body, read_image, read_images
from torchlight.app.inference.service import Classified, Service
from torchlight.app.telemetry.request_facts import ImageFacts, get_request_facts

Value = TypeVar("Value")
TOP_K: TypeAdapter[int | None] = TypeAdapter(TopK)
COVERAGE: TypeAdapter[float | None] = TypeAdapter(Coverage)


class PredictionRoute(APIRoute):
    """Calls its endpoint itself, with what FastAPI's dependency injection would give it.

    Injection took 0.1 ms a request, 3% of what the answer for a small picture costs. FastAPI still makes the OpenAPI
    document from the endpoint's signature.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request; FastAPI documents this method as the way to customise routes."""
        endpoint = self.endpoint

        async def answer(request: Request) -> Response:
            top_k, coverage = _read_query(request, "top_k", TOP_K), _read_query(request, "coverage", COVERAGE)
            response: Response = await endpoint(request, request.app.state.service, top_k, coverage)
            return response

        return answer


router = APIRouter(
    prefix="/v1",
    tags=["prediction"],
    route_class=PredictionRoute,
    responses=document_problems(400, 408, 413, 415, 422, 503, 504),
)


@router.post("/predict", response_model=PredictResponse, openapi_extra=document_image_body("file"))
async def predict(request: Request, service: RunningService, top_k: TopK = None, coverage: Coverage = None) -> Response:
    """Classify one image: JPEG, PNG, WebP, GIF, BMP or TIFF, as the form field `file` or as the whole body.

    The centre of the image counts; what is cut off is not seen. The header Server-Timing holds `timing_ms` too.
    """
    content = await read_image(request, service.settings)
    classified = await while_connected(request, service.classify(content))
    _note_images(request, [classified], service)
    timing = _timing(classified)
    body = PredictResponse(
        predictions=_predictions(service, classified.answer.result.probabilities, top_k),
        unknown=describe_unknown(classified.answer.result.p_value),
        set=service.answer_set(classified.answer.result.probabilities, coverage),
        model=summarise_model(service),
        image=summarise_image(classified.image),
        timing_ms=timing,
    )
    return _json(body, {"Server-Timing": ", ".join(f"{stage};dur={ms}" for stage, ms in timing)})


@router.post("/predict/batch", response_model=BatchResponse, openapi_extra=document_image_body("files", many=True))
async def predict_batch(
    request: Request, service: RunningService, top_k: TopK = None, coverage: Coverage = None
) -> Response:
    """Classify many images, the form fields `files`: one result or one problem for each, in order.

    Status 200 says that the request was understood; look at each result.
    """
    uploads = await read_images(request, service.settings)
    outcomes = await while_connected(request, service.classify_all([upload.content for upload in uploads]))
    _note_images(request, [one for one in outcomes if isinstance(one, Classified)], service)
    results = [
        _result(request, service, upload, outcome, top_k, coverage)
        for upload, outcome in zip(uploads, outcomes, strict=True)
    ]
    return _json(BatchResponse(results=results, model=summarise_model(service)))


def _note_images(request: Request, classified: Sequence[Classified], service: Service) -> None:
    """Let the request's line in the log, and its trace, say what became of its images."""
    facts = get_request_facts(request.scope)
    facts.model = service.classifier.digest
    facts.images = [
        ImageFacts(one.image.id, one.answer.batch_size, one.stages_s, one.answer.started + one.answer.run_s)
        for one in classified
    ]


def _read_query(request: Request, name: str, adapter: TypeAdapter[Value]) -> Value:
    """Return a query parameter, validated as FastAPI does it; None without one."""
    try:
        return adapter.validate_python(request.query_params.get(name))
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("query", name)} for one in error.errors()]) from error


def _result(
    request: Request,
    service: Service,
    upload: Upload,
    outcome: Classified | BaseException,
    top_k: int | None,
    coverage: float | None,
) -> BatchPrediction | BatchProblem:
    if isinstance(outcome, Classified):
        return BatchPrediction(
            filename=upload.filename,
            predictions=_predictions(service, outcome.answer.result.probabilities, top_k),
            unknown=describe_unknown(outcome.answer.result.p_value),
            set=service.answer_set(outcome.answer.result.probabilities, coverage),
            image=summarise_image(outcome.image),
        )
    found = find_problem(outcome)
    if found is None:
        raise outcome
    service.metrics.count_problem(found[1])
    return BatchProblem(filename=upload.filename, problem=describe_problem(request, *found, str(outcome)))


def _predictions(service: Service, probabilities: Tensor, top_k: int | None) -> list[PredictionBody]:
    best = service.classifier.top_k(probabilities, top_k)
    return [PredictionBody(label=one.label, index=one.index, probability=one.probability) for one in best]


def _timing(classified: Classified) -> Timing:
    return Timing(**{stage: round(1000 * seconds, 2) for stage, seconds in classified.stages_s.items()})


def _json(body: BaseModel, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body.model_dump_json(), headers=headers, media_type="application/json")
