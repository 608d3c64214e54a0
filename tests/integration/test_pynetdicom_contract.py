"""What the receiver builds on in pynetdicom. When a new version fails here, read the sentence with it.

The sources are compared without comments, docstrings and layout: what is left of them is behaviour.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import pynetdicom
import pytest
from pynetdicom import events, fsm
from pynetdicom.acse import ACSE
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association, ServiceUser
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import DIMSEPrimitive
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.presentation import negotiate_as_acceptor
from pynetdicom.timer import Timer
from pynetdicom.transport import AddressInformation, AssociationSocket

from gateway.receive.association.acceptor import GuardedAssociation
from gateway.receive.association.dul import UpperLayer
from gateway.receive.association.wakeup import SteadyTimer
from gateway.receive.association.wire import PeerSocket

VERSION = "3.0.4"

OVERRIDDEN = (
    (
        UpperLayer,
        DULServiceProvider,
        {"__init__", "send_pdu", "kill_dul", "idle_timer_expired", "run_reactor", "_read_pdu_data"},
    ),
    (GuardedAssociation, Association, {"__init__", "run_reactor", "_run_reactor", "kill"}),
    (PeerSocket, AssociationSocket, {"__init__", "send", "_shutdown_socket"}),
    (SteadyTimer, Timer, {"start", "stop", "remaining", "expired"}),
)

BUILT_ON: tuple[tuple[Callable[..., Any], str, str], ...] = (
    (DULServiceProvider.__init__, "589f3beeece22e6d", "UpperLayer replaces queues and timers that it makes"),
    (DULServiceProvider.run_reactor, "7afc57a60113e791", "UpperLayer.run_reactor and _step are ours instead"),
    (DULServiceProvider._read_pdu_data, "b464daf039f82af5", "UpperLayer._read_pdu_data puts the same events"),
    (DULServiceProvider._process_recv_primitive, "b2913aacd2ddd862", "UpperLayer._step relies on it to peek"),
    (DULServiceProvider._decode_pdu, "9ff977fd0e55cc09", "UpperLayer._hand_over relies on it"),
    (DULServiceProvider._send, "251bfb4142a57c50", "the actions of the state machine send with it"),
    (DULServiceProvider.send_pdu, "64f27efea8ad11ab", "UpperLayer.send_pdu adds the bell"),
    (DULServiceProvider.receive_pdu, "91ed9b30bf70127d", "GuardedAssociation takes primitives with it"),
    (DULServiceProvider.kill_dul, "24b3f412a3a5aa21", "UpperLayer reads _kill_thread"),
    (fsm.StateMachine.do_action, "25e4287fea98b283", "UpperLayer._perform checks the table before"),
    (fsm.AA_1, "f3b9b4b83a2066dd", "sends our A-ABORT and begins Sta13"),
    (fsm.AA_8, "34dbd77ea0249e0f", "UpperLayer._abort_as_provider does the same, with a reason"),
    (fsm.AR_5, "07d640b826c22bbe", "ends the thread after Sta13"),
    (fsm.AE_6, "b57d99785c2a4300", "reads the A-ASSOCIATE-RQ as UpperLayer._hand_over tried"),
    (fsm.DT_2, "9ac28e67bcd1db36", "UpperLayer.forward does the same without a PDU"),
    (Association.__init__, "31da48213cbadd9d", "GuardedAssociation then replaces dul and the queue of dimse"),
    (Association.run_reactor, "dd6a6e925ce80511", "GuardedAssociation._serve is ours instead"),
    (Association._run_reactor, "923d0625edfb18cb", "GuardedAssociation._run_reactor is ours instead"),
    (Association.kill, "db2a441714d9ea17", "GuardedAssociation.kill is ours instead"),
    (Association._abort_blocking, "3a00262dd3cbcad5", "sets _sent_abort, which ends reading"),
    (Association._serve_request, "4c7e060166a122a4", "serves the rest; on what deliver opens it is off"),
    (Association.send_c_store, "d076e671fa48f44e", "one get_msg(block=True): Answers waits for ours"),
    (Association.send_c_echo, "6730e59e3cee2355", "the same"),
    (Association.set_socket, "28913314e8860c0e", "gives the PeerSocket to the upper layer"),
    (ACSE._negotiate_as_acceptor, "acda0f70a2012368", "negotiates what StorageSCP._offer gives it"),
    (ACSE.send_reject, "53c99806d26e993c", "StorageSCP._on_requested rejects with it"),
    (ACSE.is_aborted, "f580a1f955f236a7", "looks at to_user_queue"),
    (ACSE.is_release_requested, "b3f0b139c6955a9d", "looks at to_user_queue"),
    (negotiate_as_acceptor, "6e4c1a702171e09b", "writes into results of its own only: ours are shared"),
    (A_ASSOCIATE_RQ.to_primitive, "166a042a2aecd6e5", "leaves the list of contexts to StorageSCP._offer"),
    (ServiceUser.supported_contexts.fset, "2c506a42d5f12893", "takes a list until negotiation"),
    (DIMSEServiceProvider.receive_primitive, "3753d6790c54425c", "gathers what hand_over gives it; Evt19"),
    (DIMSEPrimitive.is_valid_request.fget, "31b15bfa0652cd5f", "MessageQueue refuses what has neither this"),
    (DIMSEPrimitive.is_valid_response.fget, "926487ba26582ba2", "nor this; _serve_request would drop it"),
    (DIMSEServiceProvider.get_msg, "1d0eb59a1b3d15d0", "our loop takes messages with it"),
    (AssociationSocket.__init__, "b41f4a41a8b563bb", "puts Evt5"),
    (AssociationSocket.close, "30279eeefaa8b0f0", "calls our _shutdown_socket and puts Evt17"),
    (AddressInformation.from_tuple, "0ccb5588e5ac1ffc", "made of accept()'s address"),
    (ApplicationEntity.active_associations.fget, "7f45cad3b54c20aa", "negotiation counts with it"),
    (DIMSEMessage.primitive_to_message, "b7d29a32d8372b5f", "Exchange.tell makes its message with it"),
    (DIMSEMessage.encode_msg, "ff666e6bdddc7aee", "and its fragments; is kept from lengths below 7"),
    (DIMSEServiceProvider.maximum_pdu_size.fget, "cb8a30d86dafc526", "what pdu_bytes looks at"),
    (ServiceUser.maximum_length.fget, "30d6907356b58dd3", "the same; None where nothing is announced"),
    (fsm.DT_1, "9271347263a4a4cf", "takes what link._queue puts into to_provider_queue"),
    (Timer.restart, "303c0a1b9515a3da", "calls our start: see quiet_s"),
    (events.trigger, "b0bf6555d6664390", "what Exchange.on_message raises kills nothing"),
    (ApplicationEntity.associate, "bb9bc279d70fbc52", "open_call; starts what is established"),
    (ACSE._negotiate_as_requestor, "f0118ac80cd2e0f3", "open_call; what is left where there is none"),
    (AssociationSocket.connect, "9ef01c1e30de9e8d", "calls bound() after its own settimeout"),
    (AssociationSocket.recv, "cad35d2f220613a5", "bounded() does the same within bounds"),
    (AssociationSocket.send, "e0e88e4b89b75fb5", "a write that times out puts Evt17"),
    (AssociationSocket._shutdown_socket, "2fa75523096901cf", "call.end closes with it"),
    (DULServiceProvider._is_transport_event, "ca38be7c744eaa2d", "closes after an abort"),
    (ACSE.send_release, "0eb91833b9fbf24d", "call.end releases with it"),
    (ACSE.send_abort, "9d2e88e07f668de2", "call.end aborts with it"),
    (fsm.AR_1, "accebd99097e343b", "sends our A-RELEASE-RQ"),
    (fsm.AR_3, "0953a77551abaae1", "ends the thread when the peer has answered it"),
    (fsm.AA_4, "ba6ea01b00cf9674", "ends the thread when the connection is gone"),
)  # fmt: skip


def behaviour(function: Callable[..., Any]) -> str:
    """Hash of a function's code without comments, docstring and layout."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    body = tree.body[0].body  # type: ignore[attr-defined]
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        del body[0]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def test_the_version_is_the_one_that_was_read() -> None:
    assert pynetdicom.__version__ == VERSION, (
        f"gateway/receive/ was written against pynetdicom {VERSION}: "
        "compare the functions that the other tests here name, then change VERSION and their hashes."
    )


@pytest.mark.parametrize(("function", "known", "why"), BUILT_ON, ids=lambda v: getattr(v, "__qualname__", ""))
def test_what_we_build_on_does_what_it_did(function: Callable[..., Any], known: str, why: str) -> None:
    assert behaviour(function) == known, (
        f"pynetdicom changed {function.__qualname__}. We build on it: {why}. Read the difference, adapt "
        "gateway/receive, run tests/hostile and test_transport.py, then put the new hash here."
    )


@pytest.mark.parametrize(("ours", "theirs", "listed"), OVERRIDDEN, ids=lambda v: getattr(v, "__name__", ""))
def test_every_member_that_we_override_is_listed(ours: type, theirs: type, listed: set[str]) -> None:
    generic = {"__module__", "__doc__", "__annotations__", "__static_attributes__", "__firstlineno__"}
    found = {name for name in vars(ours) if name in vars(theirs)} - generic
    assert found == listed, (
        f"{ours.__name__} overrides {sorted(found)} of {theirs.__name__}: list what is meant, and rename "
        "what only happens to have the name of something that pynetdicom calls."
    )


def test_the_states_and_events_that_we_name_mean_what_they_did() -> None:
    expected = {
        ("Evt5", "Sta1"): "AE-5",
        ("Evt6", "Sta2"): "AE-6",
        ("Evt7", "Sta3"): "AE-7",
        ("Evt8", "Sta3"): "AE-8",
        ("Evt9", "Sta6"): "DT-1",
        ("Evt11", "Sta6"): "AR-1",
        ("Evt13", "Sta7"): "AR-3",
        ("Evt10", "Sta6"): "DT-2",
        ("Evt12", "Sta6"): "AR-2",
        ("Evt14", "Sta8"): "AR-4",
        ("Evt15", "Sta6"): "AA-1",
        ("Evt15", "Sta7"): "AA-1",
        ("Evt16", "Sta6"): "AA-3",
        ("Evt17", "Sta6"): "AA-4",
        ("Evt17", "Sta7"): "AA-4",
        ("Evt17", "Sta2"): "AA-5",
        ("Evt17", "Sta13"): "AR-5",
        ("Evt18", "Sta2"): "AA-2",
        ("Evt18", "Sta13"): "AA-2",
        ("Evt19", "Sta6"): "AA-8",
    }
    found = {pair: fsm.TRANSITION_TABLE.get(pair) for pair in expected}
    assert found == expected, (
        "PS3.8 Table 9-10 in pynetdicom changed: see gateway/receive/association/dul.py for each state."
    )
