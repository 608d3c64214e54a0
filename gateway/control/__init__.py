"""What a person decides, carried out by the one process that writes the journal.

``orders`` says what can be asked for; ``desk`` takes orders in the running gateway, over a socket in its data
folder that only its user can open; ``call`` asks there, or does it itself while no gateway runs.
"""

from gateway.control.call import carry_out_orders
from gateway.control.desk import Desk
from gateway.control.orders import Answer, Order

__all__ = ["Answer", "Desk", "Order", "carry_out_orders"]
