"""One plan, replayed by several load processes: Locust's workers, told what to do by its master.

Both sides say again and again how they stand, and act on what they last heard of the other, so that
a message that is lost, or comes twice, changes nothing. :mod:`.master` and :mod:`.worker` hold the
two sides' state and know neither Locust nor gevent; :mod:`.bridge` joins them to both.
"""
