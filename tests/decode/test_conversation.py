"""A conversation's prompts: the tokens that were decoded and what is said after them; nothing is read twice."""

from pathlib import Path

import pytest
from cli_checkpoints import demo_copy
from demo import demo, demo_head

from skulk_core.decode.conversation import Conversation, PlainConversation, TemplatedConversation, converse
from skulk_core.decode.session import Outcome, Request, Session
from skulk_core.errors import PromptError
from skulk_core.models.loading import load
from skulk_core.types import FinishReason

# the demo's stop token ends every turn, as in an instruct model
TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'user' %}Question: {{ message.content }}\n"
    "{% else %}Answer: {{ message.content }}<|endoftext|>\n{% endif %}{% endfor %}Answer:"
)
SAID = ("How do I open a file?", "And then?", "Which module is it?")


def answered(session: Session, conversation: Conversation, said: str, **settings: object) -> Outcome:
    prompt = conversation.after(said)
    request = Request(prompt=prompt.tokens, depth=2, max_tokens=12, go_on=True, **settings)  # type: ignore[arg-type]
    outcome = Outcome()
    for _ in session.decode(request, outcome):
        pass
    conversation.answered(prompt, outcome)
    return outcome


def with_template(folder: Path, template: str) -> Session:
    demo_copy(folder)
    (folder / "chat_template.jinja").write_text(template)
    return Session(load(folder, "float32"), None)


def templated(folder: Path, template: str = TEMPLATE) -> tuple[Session, TemplatedConversation]:
    session = with_template(folder, template)
    conversation = converse(session, raw=False)
    assert isinstance(conversation, TemplatedConversation)
    return session, conversation


def plain_turn(session: Session, conversation: Conversation, said: str, **settings: object) -> Outcome:
    """A turn at depth 0: these sessions have no head."""
    prompt = conversation.after(said)
    request = Request(prompt=prompt.tokens, depth=0, max_tokens=12, go_on=True, **settings)  # type: ignore[arg-type]
    outcome = Outcome()
    for _ in session.decode(request, outcome):
        pass
    conversation.answered(prompt, outcome)
    return outcome


@pytest.mark.parametrize("space", [" ", ""])
def test_every_turn_reads_only_what_is_new(tmp_path: Path, space: str) -> None:
    """Whether or not the template writes the space that the model's first token began with."""
    session, conversation = templated(tmp_path / "model", TEMPLATE.replace("Answer: ", f"Answer:{space}"))
    held = 0
    for said in SAID:
        outcome = plain_turn(session, conversation, said)
        assert outcome.stats.reused_tokens == held
        # the last token of an answer was never fed
        held = outcome.stats.prompt_tokens + len(outcome.tokens) - 1
        assert outcome.tokens


def test_the_prompt_is_what_the_template_writes(tmp_path: Path) -> None:
    session, conversation = templated(tmp_path / "model")
    first = plain_turn(session, conversation, SAID[0])
    prompt = conversation.after(SAID[1])
    messages = [
        {"role": "user", "content": SAID[0]},
        # the template writes the space between its own words and the answer
        {"role": "assistant", "content": first.text.removeprefix(" ")},
        {"role": "user", "content": SAID[1]},
    ]
    assert prompt.text == session.render_chat(messages)
    assert session.text_of(prompt.tokens) == session.text_of(session.encode_chat(messages))


def test_a_template_that_writes_answers_otherwise_is_read_again(tmp_path: Path) -> None:
    """As those that leave thinking out: the model must read what the template says, not what it once wrote."""
    session, conversation = templated(tmp_path / "model", TEMPLATE.replace("{{ message.content }}<", "(left out)<"))
    first = plain_turn(session, conversation, SAID[0])
    prompt = conversation.after(SAID[1])
    assert first.text not in prompt.text
    assert prompt.tokens == session.encode_chat(
        [
            {"role": "user", "content": SAID[0]},
            {"role": "assistant", "content": first.text},
            {"role": "user", "content": SAID[1]},
        ]
    )
    assert plain_turn(session, conversation, SAID[1]).stats.reused_tokens == 0


def test_a_template_that_refuses_a_conversation_leaves_it_as_it_was(tmp_path: Path) -> None:
    refusing = "{% if messages[-1].content == 'no' %}{{ raise_exception('not this') }}{% endif %}" + TEMPLATE
    session, conversation = templated(tmp_path / "model", refusing)
    plain_turn(session, conversation, SAID[0])
    before = conversation.after(SAID[1])
    with pytest.raises(PromptError, match="not this"):
        conversation.after("no")
    assert conversation.after(SAID[1]) == before


def demo_session() -> tuple[Session, PlainConversation]:
    session = Session(demo(), demo_head().head)
    conversation = converse(session, raw=False)
    assert isinstance(conversation, PlainConversation)
    return session, conversation


def test_a_base_model_goes_on_with_one_running_text() -> None:
    session, conversation = demo_session()
    assert not conversation.goes_on_by_itself
    first = answered(session, conversation, "The server handles each")
    assert conversation.goes_on_by_itself
    second = answered(session, conversation, "")
    assert second.stats.reused_tokens == first.stats.prompt_tokens + len(first.tokens) - 1
    # cut and gone on from is the text that was never cut
    at_once = Outcome()
    request = Request(prompt=session.encode("The server handles each", raw=True), depth=0, max_tokens=24)
    assert "".join(session.decode(request, at_once)) == at_once.text
    assert first.tokens + second.tokens == at_once.tokens
    prompt = conversation.after("The end")
    assert session.text_of(prompt.tokens).endswith("\nThe end")


def test_a_stop_string_is_no_part_of_what_is_gone_on_from() -> None:
    """Cut within a token, too: the text goes on from where it was cut, as it was shown."""
    session, conversation = demo_session()
    whole = answered(session, conversation, "Return the number of elements")
    conversation.reset()
    for stop in (whole.text[6:9], whole.text[9:10], whole.text[-3:]):
        outcome = answered(session, conversation, "Return the number of elements", stop=(stop,))
        assert outcome.finish_reason is FinishReason.STOP
        assert stop not in outcome.text
        shown = session.text_of(conversation.after("").tokens)
        assert shown.endswith(outcome.text)
        assert not shown.endswith(stop)
        again = answered(session, conversation, "")
        assert again.stats.reused_tokens == 0
        conversation.reset()


def test_an_interrupted_answer_is_remembered_as_far_as_it_came() -> None:
    session, conversation = demo_session()
    prompt = conversation.after("Return the number of elements")
    whole = answered(session, conversation, "Return the number of elements")
    conversation.reset()
    # what a stop string that never comes held back belongs to the answer
    stop, shown = whole.text[4:9] + "\0", ""
    outcome = Outcome()
    pieces = session.decode(Request(prompt.tokens, 2, max_tokens=50, stop=(stop,), go_on=True), outcome)
    while len(outcome.tokens) < 2 or outcome.text == session.text_of(outcome.tokens):
        shown += next(pieces)
    pieces.close()
    assert len(shown) < len(outcome.text)
    assert outcome.finish_reason is FinishReason.INTERRUPTED
    assert outcome.text == session.text_of(outcome.tokens)
    conversation.answered(prompt, outcome)
    assert answered(session, conversation, "").stats.reused_tokens == len(prompt.tokens) + len(outcome.tokens) - 1


def test_after_a_reset_nothing_is_left() -> None:
    session, conversation = demo_session()
    answered(session, conversation, "Return the number of elements")
    conversation.reset()
    assert (conversation.num_tokens, conversation.goes_on_by_itself) == (0, False)
    assert conversation.after("Hello").tokens == session.encode("Hello", raw=True)
