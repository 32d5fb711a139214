"""What the golden set is about: sixteen fictional subjects, each with records of a few fields."""

from __future__ import annotations

from dataclasses import dataclass

from scenarios.golden.fields import (
    DAYS,
    INTEGER,
    NUMBER,
    PEOPLE,
    TOWNS,
    Field,
    choice,
    clock,
    code,
    date,
    decimal,
    money,
    number,
    pair,
    string,
)

_FIRMS = (
    "Bellweather Tools", "Corvane Paper", "Dray and Sons", "Elmstead Glass", "Fennick Foods",
    "Garrow Print", "Hollis Timber", "Inkwell Labels", "Juniper Linen", "Kaldor Cables",
)  # fmt: skip
_STATES = ("in transit", "delivered", "held at customs", "awaiting pickup")
_SEVERITIES = ("low", "medium", "high", "critical")
_SERVICES = ("checkout", "search", "billing", "login", "media upload", "notifications")
_TOPICS = ("budget", "safety", "hiring", "roadmap", "supplier", "training", "launch", "audit")
_MODELS = ("Arden 3", "Borel S", "Cobalt Mini", "Delta Air", "Ember 20")
_COLOURS = ("saffron", "smoked", "winter", "harvest", "lemon", "black pepper", "cider", "walnut")
_DISHES = ("lentil stew", "fish pie", "barley soup", "onion tart", "bean casserole", "plum crumble")
_INGREDIENTS = ("leeks", "chickpeas", "fennel", "pearl onions", "kale", "parsnips")
_BOOKS = ("The Salt Road", "Nine Lanterns", "A Quiet Orchard", "The Glass Ferry", "Under Low Skies")
_ROOMS = ("Birch Room", "Harbour Room", "Attic Studio", "Long Gallery")
_CROPS = ("tomatoes", "radishes", "sweet peas", "spinach", "courgettes", "broad beans")
_PARTS = ("rear derailleur", "brake cable", "front hub", "bottom bracket", "saddle clamp")
_COURSES = ("Basic Surveying", "Marine Biology", "Letterpress", "Applied Optics", "Folk Harmony")
_ITEMS = ("packing tape", "cable ties", "work gloves", "hex bolts", "paint rollers", "filter mats")
_ARTISTS = ("Orla Venn", "Matteo Grisi", "Hanne Dahl", "Bao Lim", "Tesfaye Alemu")
_WORKS = ("Tide", "Lamp", "Orchard", "Ferry", "Snowfield", "Bridge", "Heron", "Kiln")
_FORMS = ("Study", "Triptych", "Relief", "Etching", "Mosaic", "Portrait")


@dataclass(frozen=True)
class Subject:
    """One subject.

    Attributes:
        key: the field that identifies a record; its value is unique in a document.
        sentences: ways to tell a record, each with every field.
        asides: sentences without facts that are asked for.
    """

    name: str
    heading: str
    noun: str
    key: str
    fields: tuple[Field, ...]
    sentences: tuple[str, ...]
    asides: tuple[str, ...]

    @property
    def asked(self) -> tuple[Field, ...]:
        """Every field but the key."""
        return tuple(field for field in self.fields if field.name != self.key)


def _key(name: str, draw: object) -> Field:
    return Field(name, draw, "", string())  # type: ignore[arg-type]


SUBJECTS: tuple[Subject, ...] = (
    Subject(
        "invoices", "Open invoices, accounts payable", "invoice", "invoice",
        (
            _key("invoice", code("INV-", 2000, 9899)),
            Field("supplier", choice(_FIRMS), "Which supplier sent invoice {key}?", string()),
            Field("amount", money(40, 4800), "What is the amount of invoice {key}?", NUMBER),
            Field("due", date(), "On which date is invoice {key} due?", string()),
        ),
        (
            "Invoice {invoice} from {supplier} comes to {amount} and is due on {due}.",
            "{supplier} billed us {amount} under number {invoice}; payment is due on {due}.",
        ),
        ("The paper copy is in the blue tray.", "Nobody has disputed it so far."),
    ),
    Subject(
        "shipments", "Shipments of the week", "shipment", "shipment",
        (
            _key("shipment", code("SH-", 1000, 9899)),
            Field("destination", choice(TOWNS), "Where is shipment {key} going?", string()),
            Field("weight", number(12, 940, "kg"),
                  "How many kilograms does shipment {key} weigh?", INTEGER),
            Field("status", choice(_STATES), "What is the status of shipment {key}?",
                  string(enum=list(_STATES))),
        ),
        (
            "Shipment {shipment} to {destination} weighs {weight} and is {status}.",
            "Bound for {destination}, shipment {shipment} ({weight}) is currently {status}.",
        ),
        ("The driver asked for a signature.", "The pallets were wrapped twice."),
    ),
    Subject(
        "incidents", "Incident log of the on-call team", "incident", "incident",
        (
            _key("incident", code("IR-", 300, 9899)),
            Field("service", choice(_SERVICES), "Which service did incident {key} hit?", string()),
            Field("severity", choice(_SEVERITIES), "What severity was given to incident {key}?",
                  string(enum=list(_SEVERITIES))),
            Field("minutes", number(4, 240, "minutes"),
                  "How many minutes did incident {key} last?", INTEGER),
            Field("owner", choice(PEOPLE), "Who handled incident {key}?", string()),
        ),
        (
            "Incident {incident} hit {service} with {severity} severity; {owner} closed it after"
            " {minutes}.",
            "{owner} handled {incident}, a problem of {severity} severity in {service} that lasted"
            " {minutes}.",
        ),
        ("A note went out to the customers.", "The review is still to be written."),
    ),
    Subject(
        "meetings", "Meetings planned for next week", "meeting", "meeting",
        (
            _key("meeting", code("MT-", 100, 9899)),
            Field("topic", choice(_TOPICS), "What is the topic of meeting {key}?", string()),
            Field("day", choice(DAYS), "On which weekday is meeting {key}?",
                  string(enum=list(DAYS))),
            Field("time", clock(), "At what time does meeting {key} begin?", string()),
            Field("chair", choice(PEOPLE), "Who chairs meeting {key}?", string()),
        ),
        (
            "Meeting {meeting} on the {topic} takes place on {day} at {time}, chaired by {chair}.",
            "{chair} chairs {meeting}, the {topic} meeting, which begins at {time} on {day}.",
        ),
        ("Coffee is served outside.", "Slides are to be sent a day ahead."),
    ),
    Subject(
        "devices", "Sensor devices in the field", "device", "device",
        (
            _key("device", code("DV", 10000, 98999)),
            Field("model", choice(_MODELS), "Which model is device {key}?", string()),
            Field("site", choice(TOWNS), "At which site is device {key} mounted?", string()),
            Field("battery", number(5, 99, "percent"),
                  "What is the battery level of device {key}, in percent?", INTEGER),
        ),
        (
            "Device {device}, an {model}, is mounted at {site} and reports a battery at {battery}.",
            "At {site} stands {device} (model {model}); its battery is at {battery}.",
        ),
        ("The casing shows a little rust.", "It was last cleaned in spring."),
    ),
    Subject(
        "recipes", "Cards from the canteen's recipe box", "recipe", "dish",
        (
            _key("dish", pair(_COLOURS, _DISHES)),
            Field("minutes", number(15, 120, "minutes", 5),
                  "How many minutes does the {key} take?", INTEGER),
            Field("serves", number(2, 12), "How many people does the {key} serve?", INTEGER),
            Field("oven", number(140, 230, "degrees", 10),
                  "At how many degrees is the {key} baked?", INTEGER),
            Field("with", choice(_INGREDIENTS), "Which vegetable goes into the {key}?", string()),
        ),
        (
            "The {dish} is made with {with}, serves {serves}, and takes {minutes} at {oven}.",
            "For {serves} people, bake the {dish} with {with} for {minutes} at {oven}.",
        ),
        ("Season it at the end.", "It keeps well until the next day."),
    ),
    Subject(
        "trains", "Evening timetable of the valley line", "train", "train",
        (
            _key("train", code("VL ", 100, 9899)),
            Field("bound_for", choice(TOWNS), "Where does train {key} go?", string()),
            Field("departs", clock(), "When does train {key} depart?", string()),
            Field("platform", number(1, 12), "From which platform does train {key} leave?",
                  INTEGER),
        ),
        (
            "Train {train} to {bound_for} departs at {departs} from platform {platform}.",
            "From platform {platform}, train {train} leaves at {departs} for {bound_for}.",
        ),
        ("Bicycles travel in the last carriage.", "There is no buffet on board."),
    ),
    Subject(
        "loans", "Loans of the town library", "loan", "loan",
        (
            _key("loan", code("LN-", 1000, 9899)),
            Field("title", choice(_BOOKS), "Which book is out under loan {key}?", string()),
            Field("borrower", choice(PEOPLE), "Who is the borrower of loan {key}?", string()),
            Field("back_by", date(), "By which date must loan {key} come back?", string()),
        ),
        (
            "Under loan {loan}, {borrower} has {title} until {back_by}.",
            "{title} is out to {borrower} (loan {loan}) and must come back by {back_by}.",
        ),
        ("The dust jacket stays at the desk.", "It may be extended once."),
    ),
    Subject(
        "visits", "Appointments at the harbour clinic", "appointment", "visit",
        (
            _key("visit", code("AP-", 400, 9899)),
            Field("doctor", choice(PEOPLE), "Which doctor is seen at appointment {key}?",
                  string()),
            Field("room", number(1, 40), "In which room is appointment {key}?", INTEGER),
            Field("time", clock(), "At what time is appointment {key}?", string()),
        ),
        (
            "Appointment {visit} is with {doctor} in room {room} at {time}.",
            "At {time}, {doctor} sees the patient of appointment {visit} in room {room}.",
        ),
        ("Please come ten minutes early.", "Bring the referral letter."),
    ),
    Subject(
        "bookings", "Guest book of the Heron Inn", "booking", "booking",
        (
            _key("booking", code("HB-", 100, 9899)),
            Field("guest", choice(PEOPLE), "Which guest made booking {key}?", string()),
            Field("room", choice(_ROOMS), "Which room belongs to booking {key}?", string()),
            Field("nights", number(2, 14, "nights"), "How many nights is booking {key} for?",
                  INTEGER),
        ),
        (
            "Booking {booking}: {guest} stays in the {room} for {nights}.",
            "{guest} took the {room} for {nights} under booking {booking}.",
        ),
        ("A cot is wanted.", "Breakfast is taken late."),
    ),
    Subject(
        "garden", "Beds of the community garden", "bed", "bed",
        (
            _key("bed", code("bed ", 100, 9899)),
            Field("crop", choice(_CROPS), "What grows in {key}?", string()),
            Field("sown", date(), "When was {key} sown?", string()),
            Field("water", number(3, 60, "litres"), "How many litres of water does {key} get?",
                  INTEGER),
        ),
        (
            "In {bed} grow {crop}, sown on {sown} and given {water} of water a week.",
            "The {crop} in {bed} were sown on {sown}; they get {water} a week.",
        ),
        ("Slugs were seen nearby.", "The fence needs a new post."),
    ),
    Subject(
        "repairs", "Workshop tickets of Spoke and Chain", "ticket", "ticket",
        (
            _key("ticket", code("T-", 500, 9899)),
            Field("part", choice(_PARTS), "Which part is replaced under ticket {key}?", string()),
            Field("price", money(8, 220), "What is the price on ticket {key}?", NUMBER),
            Field("mechanic", choice(PEOPLE), "Which mechanic has ticket {key}?", string()),
        ),
        (
            "Ticket {ticket}: {mechanic} replaces the {part} for {price}.",
            "{mechanic} has ticket {ticket}, a new {part} at {price}.",
        ),
        ("The bell is loose as well.", "The customer waits for a call."),
    ),
    Subject(
        "courses", "Courses of the evening school", "course", "course",
        (
            _key("course", code("EC", 100, 9899)),
            Field("title", choice(_COURSES), "What is the title of course {key}?", string()),
            Field("teacher", choice(PEOPLE), "Who teaches course {key}?", string()),
            Field("seats", number(8, 90, "seats"), "How many seats does course {key} have?",
                  INTEGER),
        ),
        (
            "Course {course}, {title}, is taught by {teacher} and has {seats}.",
            "{teacher} teaches {title} as course {course}, with {seats}.",
        ),
        ("The reading list follows.", "The hall is heated."),
    ),
    Subject(
        "stock", "Stock count of the north warehouse", "article", "sku",
        (
            _key("sku", code("SKU-", 10000, 98999)),
            Field("item", choice(_ITEMS), "What kind of item is {key}?", string()),
            Field("quantity", number(5, 900, "units"), "How many units of {key} are in stock?",
                  INTEGER),
            Field("aisle", number(1, 48), "In which aisle is {key} kept?", INTEGER),
        ),
        (
            "Article {sku} ({item}) is kept in aisle {aisle}: {quantity}.",
            "In aisle {aisle} there are {quantity} of {sku}, {item}.",
        ),
        ("The lower shelf is being painted.", "Labels face the aisle."),
    ),
    Subject(
        "weather", "Readings of the coastal weather stations", "station", "station",
        (
            _key("station", code("WS-", 100, 9899)),
            Field("town", choice(TOWNS), "Near which town is station {key}?", string()),
            Field("temperature", decimal(-4, 31, "degrees"),
                  "What temperature did station {key} read, in degrees?", NUMBER),
            Field("wind", number(3, 95, "km/h"), "What wind speed did station {key} read, in km/h?",
                  INTEGER),
        ),
        (
            "Station {station} near {town} read {temperature} and a wind of {wind}.",
            "Near {town}, station {station} measured {temperature}, the wind at {wind}.",
        ),
        ("The mast was checked in autumn.", "Fog was reported at dawn."),
    ),
    Subject(
        "museum", "Inventory of the quay museum", "piece", "piece",
        (
            _key("piece", code("QM-", 100, 9899)),
            Field("title", pair(_WORKS, _FORMS), "What is the title of piece {key}?", string()),
            Field("artist", choice(_ARTISTS), "Who made piece {key}?", string()),
            Field("year", number(1871, 2009), "In which year was piece {key} made?", INTEGER),
        ),
        (
            "Piece {piece}, {title}, was made by {artist} in {year}.",
            "{artist} made {title} in {year}; it is piece {piece}.",
        ),
        ("The frame is not original.", "It is shown behind glass."),
    ),
)  # fmt: skip
