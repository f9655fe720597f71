# Makes the schedule of a job from a seed: who calls what, in which order, and what goes wrong. It is
# text: lines of `kind key=value ...`, read by history-rank (schedule.c) and by judge.py:
#
#     job seed=7 rank_count=4 deadline_ms=20000 check=0
#     process id=0 ranks=0,1              ranks that are threads of one process
#     team id=3 title=red ranks=2,0       what team 3 is, whichever step makes it
#     step k=5 op=gather team=3 ranks=2,0 window=1 at=64 bytes=4096 place=own policy=0
#     incident k=5 kind=kill rank=2 guilty=2 delay_us=300
#
# Every rank performs, in the order of k, the steps that list it. A schedule is laid out beforehand,
# without knowing how calls will go: after an incident it uses teams without the guilty ranks, so it
# holds whatever the survivors see.
import errno
import random
import zlib

# How bytes, guards and windows are laid out: as in history.h.
PERIOD, GUARD = 251, 64

# What can go wrong: how often, whether it takes a deadline to be seen, and what it is. A seed whose
# schedule has a kind that is switched off is left out, so what a seed means never changes.
KINDS = {
    "kill": (8, False, "a rank kills itself by SIGKILL within a call or shortly after"),
    "exit": (4, False, "a rank calls _exit() while another thread of it is in a call"),
    "two": (4, False, "two ranks kill themselves within one call"),
    "process": (0, False, "a process with several ranks dies, by any of the three above"),
    "stop_short": (3, False, "a rank is stopped, for much less than the deadline"),
    "refuse": (4, False, "a rank's arguments are refused; it calls again, rightly"),
    "refuse_checked": (3, False, "a rank's arguments are refused under ZEROCTA_CHECK"),
    "differ": (3, False, "a rank gives another size than the others, where sizes are compared"),
    "stop_long": (3, True, "a rank is stopped, for much more than the deadline"),
    "leave": (2, True, "a rank finalizes while the others go on"),
    "absent": (2, True, "a rank does not make a call that the others make"),
    "send": (3, True, "sendmsg() fails"),
    "receive": (2, True, "recvmsg() or epoll_wait() fails"),
    "map": (4, True, "mmap(), mremap(), fallocate() or memfd_create() fails"),
    "allocate": (3, True, "malloc(), calloc() or realloc() fails"),
    "thread": (1, True, "pthread_create() fails"),
    "init_kill": (2, True, "a rank dies within zcta_init()"),
    "init_fault": (2, True, "a call of the system fails within zcta_init()"),
}
PRELOADED = {"send", "receive", "map", "allocate", "thread", "init_fault"}

# Function, error, and whether the rank can have lost a peer's message for good by it. None by which
# the system would say that somebody else is at fault, as ECONNREFUSED.
FAULTS = {
    "send": [("sendmsg", "ETOOMANYREFS", False), ("sendmsg", "ENOBUFS", False),
             ("sendmsg", "ENOMEM", False)],
    "receive": [("recvmsg", "ENOMEM", True), ("recvmsg", "ENOBUFS", True),
                ("epoll_wait", "EINTR", False), ("epoll_wait", "ENOMEM", True)],
    "map": [("mmap", "ENOMEM", False), ("mmap", "EAGAIN", False), ("fallocate", "ENOSPC", False),
            ("fallocate", "ENOMEM", False), ("fallocate", "EINTR", False),
            ("memfd_create", "EMFILE", False), ("memfd_create", "ENFILE", False)],
    "allocate": [("malloc", "ENOMEM", True), ("calloc", "ENOMEM", True),
                 ("realloc", "ENOMEM", True)],
    "thread": [("pthread_create", "EAGAIN", False)],
    "init_fault": [("connect", "ENOMEM", True), ("connect", "EAGAIN", True),
                   ("accept4", "EMFILE", True), ("socket", "EMFILE", True),
                   ("sendmsg", "ENOBUFS", True), ("recvmsg", "ENOMEM", True),
                   ("mmap", "ENOMEM", True), ("memfd_create", "ENFILE", True),
                   ("calloc", "ENOMEM", True), ("malloc", "ENOMEM", True),
                   ("epoll_ctl", "ENOMEM", True), ("pthread_create", "EAGAIN", True)],
}

QUICK_DEADLINE_MS, SLOW_DEADLINE_MS = 20000, 5000

SIZES = [0, 1, 7, 64, 100, 1000, 4096, 16384, 20000, 65535, 65536, 65537, 131072, 262144]
LARGE = [1048575, 1048576, 1048577]


class Schedule:
    """Lines as dictionaries. A line of text knows its kind by its first word."""

    def __init__(self):
        self.job, self.processes, self.teams, self.steps, self.incidents = {}, [], {}, [], []

    def text(self):
        lines = [("job", self.job)]
        lines += [("process", process) for process in self.processes]
        lines += [("team", team) for team in self.teams.values()]
        lines += [("step", step) for step in self.steps]
        lines += [("incident", incident) for incident in self.incidents]
        return "".join(kind + "".join(f" {key}={show(value)}" for key, value in line.items()) + "\n"
                       for kind, line in lines)

    def kinds(self):
        return {incident["name"] for incident in self.incidents}

    def step(self, k):
        return self.by_number.get(k)

    def finish(self):
        self.by_number = {step["k"]: step for step in self.steps}
        return self


def show(value):
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


LISTS = {"ranks", "guilty", "parts"}


def parse(text):
    made = Schedule()
    for row in text.splitlines():
        kind, *words = row.split()
        line = {}
        for word in words:
            key, value = word.split("=", 1)
            if key in LISTS:
                line[key] = [int(number) for number in value.split(",") if number]
            else:
                line[key] = int(value) if value.lstrip("-").isdigit() else value
        if kind == "job":
            made.job = line
        elif kind == "process":
            made.processes.append(line)
        elif kind == "team":
            made.teams[line["id"]] = line
        elif kind == "step":
            made.steps.append(line)
        elif kind == "incident":
            made.incidents.append(line)
    return made.finish()


# ---- The bytes that ranks give: as in model.c ----

MASK = (1 << 64) - 1


def model_period(seed, rank, step, output):
    state = (seed << 32 | rank << 24 | step << 8 | output) & MASK
    words = bytearray()
    while len(words) < PERIOD:
        state = (state + 0x9e3779b97f4a7c15) & MASK
        word = state
        word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9 & MASK
        word = (word ^ word >> 27) * 0x94d049bb133111eb & MASK
        words += (word ^ word >> 31).to_bytes(8, "little")
    return bytes(words[:PERIOD])


def model_crc(seed, rank, step, output, size):
    period = model_period(seed, rank, step, output)
    return zlib.crc32((period * (size // PERIOD + 1))[:size])


# ---- Making ----

class Maker:
    def __init__(self, seed):
        self.random = random.Random(f"zerocta history 1 {seed}")
        self.made = Schedule()
        self.k = 0
        self.windows, self.plans = {}, {}  # those that can be used, by id
        self.window_count = self.plan_count = 0
        self.good_teams = []   # whose ranks are all well
        self.dead = set()      # ranks that are gone
        self.outcasts = set()  # that live, but no team has them any more
        self.unfenced = []     # teams split or windows made since all ranks were last together
        self.seed = seed

    def chance(self, share):
        return self.random.random() < share

    # ---- Ranks ----

    def alive(self):
        return [rank for rank in range(self.made.job["rank_count"])
                if rank not in self.dead and rank not in self.outcasts]

    def process_of(self, rank):
        return next(line["ranks"] for line in self.made.processes if rank in line["ranks"])

    def lay_out(self, slow):
        ranks = self.random.choice([2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 6, 8])
        self.made.job = {"seed": self.seed, "rank_count": ranks,
                         "deadline_ms": SLOW_DEADLINE_MS if slow else QUICK_DEADLINE_MS,
                         "check": int(self.chance(0.3))}
        shape = self.random.choices(["apart", "mixed", "together"], [7, 3, 1])[0]
        homes = {"apart": list(range(ranks)),
                 "mixed": [self.random.randrange((ranks + 1) // 2 + 1) for _ in range(ranks)],
                 "together": [0] * ranks}[shape]
        for home in sorted(set(homes)):
            self.made.processes.append({
                "id": len(self.made.processes),
                "ranks": [rank for rank in range(ranks) if homes[rank] == home]})
        self.new_team(list(range(ranks)), "world", 0)
        self.good_teams.append(0)

    # ---- Steps ----

    def step(self, op, ranks, **more):
        self.k += 1
        self.made.steps.append({"k": self.k, "op": op, **more, "ranks": sorted(ranks)})
        return self.k

    def members(self, team):
        return [rank for rank in self.made.teams[team]["ranks"] if rank not in self.dead]

    def new_team(self, ranks, title=None, policy=None):
        team = len(self.made.teams)
        self.made.teams[team] = {
            "id": team, "title": title or f"t{team}",
            "policy": self.random.choice([0, 0, 1, 2, 3]) if policy is None else policy,
            "ranks": ranks}
        return team

    def some_ranks(self, pool, least=1):
        ranks = self.random.sample(pool, self.random.randint(min(least, len(pool)), len(pool)))
        return ranks if self.chance(0.5) else sorted(ranks)

    def step_team(self, pool=None, ranks=None):
        if ranks is None:
            ranks = self.some_ranks(pool or self.alive(), 2)
        team = self.new_team(ranks)
        self.step("team", ranks, team=team)
        self.good_teams.append(team)
        return team

    def step_again(self):
        """A team that was given back is made again, under the same name."""
        gone = [step["team"] for step in self.made.steps if step["op"] == "destroy"
                and set(self.made.teams[step["team"]]["ranks"]) <= set(self.alive())]
        if not gone:
            return self.step_team()
        like = self.made.teams[self.random.choice(gone)]
        if any(self.made.teams[team]["title"] == like["title"] for team in self.good_teams):
            return self.step_team()
        team = self.new_team(list(like["ranks"]), like["title"], like["policy"])
        self.step("team", like["ranks"], team=team)
        self.good_teams.append(team)
        return team

    def step_split(self, team):
        ranks = list(self.made.teams[team]["ranks"])
        self.random.shuffle(ranks)
        colors = [self.random.choice([-1, 0, 0, 1, 1]) for _ in ranks]
        parts = []
        for color in (0, 1):
            members = [rank for rank, own in zip(ranks, colors) if own == color]
            if members:
                parts.append(self.new_team(members))
        self.step("split", ranks, team=team, parts=parts)
        self.good_teams += parts
        self.unfenced.append(team)

    def step_window(self, team, shares=None, size=None, register=False):
        count = len(self.made.teams[team]["ranks"])
        if size is None:
            size = self.random.choice(LARGE if self.chance(0.04) else SIZES)
        shares = shares or self.random.choice([1, 1, 2, 3])
        window = self.window_count
        self.window_count += 1
        bytes_ = size * count * shares + (shares + 2) * GUARD + self.random.choice([1, 64, 4096])
        together = len({tuple(self.process_of(rank))
                        for rank in self.made.teams[team]["ranks"]}) == 1
        more = {"register": 1} if register else {}
        self.step("window", self.members(team), team=team, window=window, bytes=bytes_, **more)
        if not register or together:
            self.windows[window] = {"team": team, "bytes": bytes_, "k": self.k, "plans": 0}
        self.unfenced.append(team)
        return window

    def windows_for(self, team, least=0):
        ranks = set(self.made.teams[team]["ranks"])
        return [window for window, about in self.windows.items()
                if ranks <= set(self.made.teams[about["team"]]["ranks"]) and not about["plans"]
                and about["bytes"] >= least * len(ranks) + 2 * GUARD + 1]

    def place(self, team, window, outputs=1):
        """Where in a window a gather of this team is to put its output, and what it gives."""
        count = len(self.made.teams[team]["ranks"])
        room = (self.windows[window]["bytes"] - GUARD) // outputs - GUARD
        fitting = [size for size in SIZES + LARGE if size * count <= room]
        size = self.random.choice(fitting[-4:] if self.chance(0.6) else fitting)
        spare = self.windows[window]["bytes"] - GUARD - outputs * (size * count + GUARD)
        at = GUARD + self.random.choice([0, spare, self.random.randint(0, spare), min(spare, 64)])
        place = self.random.choice(["own", "own", "apart", "inside"])
        more = {}
        if place == "inside":
            behind = at + outputs * (size * count + GUARD)
            if behind + size <= self.windows[window]["bytes"] and outputs == 1:
                more["from"] = behind
            else:
                place = "apart"
        return {"window": window, "at": at, "bytes": size, "place": place, **more}

    def window_or_new(self, team):
        windows = self.windows_for(team)
        return self.random.choice(windows) if windows else self.step_window(team)

    def step_gather(self, team, ranks=None):
        where = self.place(team, self.window_or_new(team))
        self.step("gather", ranks or self.members(team), team=team, **where,
                  policy=self.random.choice([0, 0, 0, 1, 2, 3]))

    def step_stream(self, team, ranks=None):
        window = self.window_or_new(team)
        outputs = self.random.randint(1, min(4, self.windows[window]["bytes"] // GUARD - 1))
        where = self.place(team, window, outputs)
        self.step("stream", ranks or self.members(team), team=team, **where, count=outputs,
                  policy=0)

    def step_barrier(self, team, ranks=None):
        self.step("barrier", ranks or self.members(team), team=team)

    def step_plan(self, team):
        window = self.step_window(team)
        plan = self.plan_count
        self.plan_count += 1
        where = self.place(team, window)
        self.step("plan", self.members(team), team=team, plan=plan, **where)
        self.windows[window]["plans"] = 1
        self.plans[plan] = {"team": team, "released": False, "bytes": where["bytes"],
                            "window": window}
        return plan

    def plans_of(self, team):
        return [plan for plan, about in self.plans.items() if about["team"] == team]

    def step_run(self, team, ranks=None):
        plans = self.plans_of(team)
        plan = self.random.choice(plans) if plans else self.step_plan(team)
        about = self.plans[plan]
        if not about["released"] and self.chance(0.3):
            self.step("release", ranks or self.members(team), team=team, plan=plan)
            about["released"] = True
            if self.chance(0.5):
                return
        self.step("run", ranks or self.members(team), team=team, plan=plan, bytes=about["bytes"])
        about["released"] = False

    def step_free(self, team):
        plans = [plan for plan in self.plans_of(team) if not self.plans[plan]["released"]]
        windows = [window for window, about in self.windows.items()
                   if about["team"] == team and not about["plans"]]
        if plans and self.chance(0.5):
            plan = self.random.choice(plans)
            self.step("plan_free", self.members(team), team=team, plan=plan)
            self.windows[self.plans.pop(plan)["window"]]["plans"] = 0
        elif windows:
            window = self.random.choice(windows)
            self.step("window_free", self.members(team), team=team, window=window)
            del self.windows[window]

    def step_destroy(self, team):
        if team == 0 or self.plans_of(team) or team not in self.good_teams or \
                any(about["team"] == team for about in self.windows.values()):
            return
        self.step("destroy", self.members(team), team=team)
        self.good_teams.remove(team)

    def well(self, least=1):
        return [team for team in self.good_teams
                if len(self.made.teams[team]["ranks"]) >= least]

    def some_step(self):
        teams = self.well()
        if not teams:
            return self.step_team()
        team = self.random.choice(teams + self.well(2))
        op = self.random.choices(
            ["gather", "barrier", "window", "team", "split", "run", "stream", "free", "destroy",
             "again", "register"], [10, 3, 3, 3, 1.5, 4, 3, 1.5, 1, 1, 0.7])[0]
        if op in ("team", "again"):
            {"team": self.step_team, "again": self.step_again}[op]()
        elif op == "register":
            self.step_window(team, register=True)
        else:
            getattr(self, f"step_{op}")(team)
        return None

    def fence(self, without=()):
        """All meet outside the library. Who waits a deadline in one team is not late in another,
        because nobody goes on meanwhile."""
        self.step("fence", [rank for rank in range(self.made.job["rank_count"])
                            if rank not in self.dead and rank not in self.outcasts
                            and rank not in without])
        self.unfenced = []

    # ---- Incidents ----

    def incident(self, name, kind, rank, guilty, **more):
        self.made.incidents.append({"k": more.pop("k", self.k), "name": name, "kind": kind,
                                    "rank": rank, "guilty": sorted(guilty), **more})

    def delay_us(self):
        return int(10 ** self.random.uniform(0, 3.7))

    def struck_step(self, team, ops=None, harmless=False):
        """The call that an incident falls into. Returns the team that it is of. Unless the incident
        is harmless, a window that the call makes may be there or not, and is not used."""
        op = self.random.choice(ops or ["gather"] * 6 + ["barrier"] * 3 + ["window"] * 4
                                + ["team"] * 3 + ["run"] * 3 + ["stream"] * 2 + ["window_free"])
        if op == "window":
            window = self.step_window(team)
            if not harmless:
                del self.windows[window]
        elif op == "team":
            made = self.new_team(list(self.made.teams[team]["ranks"]))
            self.step("team", self.members(team), team=made)
            return made
        elif op == "window_free":
            self.window_or_new(team)
            windows = [window for window, about in self.windows.items()
                       if about["team"] == team and not about["plans"]]
            if windows:
                self.step("window_free", self.members(team), team=team, window=windows[0])
                del self.windows[windows[0]]
            else:
                self.step_barrier(team)
        else:
            getattr(self, f"step_{op}")(team)
        return team

    def doomed_steps(self, team, ranks=None):
        """Calls of a team that has failed or is about to: each of them needs all ranks."""
        for _ in range(self.random.randint(1, 3)):
            op = self.random.choice(["barrier", "gather", "barrier", "run", "stream"])
            if op in ("gather", "stream") and not self.windows_for(team, 1) or \
                    op == "run" and not self.plans_of(team):
                op = "barrier"
            k = self.k
            getattr(self, f"step_{op}")(team, ranks)
            if self.k == k or self.made.steps[-1].get("bytes", 1) == 0:
                self.step_barrier(team, ranks)

    def drop(self, guilty):
        """No team of a guilty rank is used again, nor a window that may not exist everywhere."""
        guilty = set(guilty)
        touched = {team for team, about in self.made.teams.items()
                   if guilty & set(about["ranks"])}
        self.good_teams = [team for team in self.good_teams if team not in touched]
        self.plans = {plan: about for plan, about in self.plans.items()
                      if about["team"] not in touched}
        self.windows = {window: about for window, about in self.windows.items()
                        if not (about["team"] in touched and about["team"] in self.unfenced)}

    def recover(self):
        alive = self.alive()
        if alive:
            team = self.step_team(ranks=alive if self.chance(0.7) else None, pool=alive)
            if self.chance(0.6):
                self.step_gather(team)

    def teams_with_survivors(self, deaths=1):
        """(team, victims) whose deaths leave somebody in the team."""
        found = []
        for team in self.well(2):
            ranks = self.made.teams[team]["ranks"]
            for _ in range(4):
                victims = self.random.sample(ranks, min(deaths, len(ranks)))
                gone = {rank for victim in victims for rank in self.process_of(victim)}
                homes = {tuple(self.process_of(victim)) for victim in victims}
                if len(homes) == deaths and set(ranks) - gone:
                    found.append((team, victims))
        return found

    def strike_dead(self, name):
        choices = self.teams_with_survivors(2 if name == "two" else 1)
        if not choices:
            return False
        team, victims = self.random.choice(choices)
        guilty = sorted({rank for victim in victims for rank in self.process_of(victim)})
        if self.unfenced or self.chance(0.5):
            self.fence()
        struck = self.struck_step(team)
        for victim in victims:
            home = self.process_of(victim)
            self.incident(name if len(home) == 1 else "process",
                          "exit" if name == "exit" else "kill", victim, home,
                          delay_us=self.delay_us())
        self.dead |= set(guilty)
        if struck != team and self.chance(0.5):
            self.step_barrier(struck)
        self.doomed_steps(team)
        self.drop(guilty)
        self.outcasts -= self.dead
        self.recover()
        return True

    def strike_stop_short(self, name):
        teams = self.well(2)
        if not teams:
            return False
        team = self.random.choice(teams)
        rank = self.random.choice(self.made.teams[team]["ranks"])
        struck = self.struck_step(team, harmless=True)
        self.incident(name, "stop_short", rank, [], delay_us=self.delay_us(),
                      ms=self.random.choice([20, 100, 300]))
        if struck != team:
            self.good_teams.append(struck)
        return True

    def strike_stop_long(self, name):
        choices = self.teams_with_survivors()
        if not choices:
            return False
        team, (victim,) = self.random.choice(choices)
        guilty = self.process_of(victim)
        self.fence()
        struck = self.struck_step(team)
        at = self.k
        if struck != team:
            self.fence(without=guilty)
        self.doomed_steps(team)
        self.incident(name, "stop_long", victim, guilty, k=at, delay_us=self.delay_us(),
                      until=self.k, team=team)
        self.outcasts |= set(guilty)
        self.drop(guilty)
        self.fence()
        self.recover()
        return True

    def strike_leave(self, name):
        choices = [team for team in self.well(2)]
        if not choices:
            return False
        team = self.random.choice(choices)
        rank = self.random.choice(self.made.teams[team]["ranks"])
        self.fence()
        self.step("leave", [rank])
        self.incident(name, "leave", rank, [rank])
        self.dead.add(rank)
        self.doomed_steps(team)
        self.drop([rank])
        self.fence()
        self.recover()
        return True

    def strike_absent(self, name):
        choices = self.well(2)
        if not choices:
            return False
        team = self.random.choice(choices)
        ranks = self.made.teams[team]["ranks"]
        absent = self.random.choice(ranks)
        others = [rank for rank in ranks if rank != absent]
        self.fence()
        if self.chance(0.5):
            made = self.new_team(list(ranks))
            self.step("team", ranks, team=made)
            self.incident(name, "absent", absent, [absent])
            self.fence()
            # The same team once more, under the same name, and now everybody comes.
            again = self.new_team(list(ranks), self.made.teams[made]["title"],
                                  self.made.teams[made]["policy"])
            self.step("team", ranks, team=again)
            self.good_teams.append(again)
            return True
        self.step_barrier(team)
        self.incident(name, "absent", absent, [absent])
        self.doomed_steps(team, others)
        self.good_teams.remove(team)
        self.plans = {plan: about for plan, about in self.plans.items() if about["team"] != team}
        self.fence()
        self.recover()
        return True

    def strike_refuse(self, name):
        teams = self.well(2)
        if not teams:
            return False
        team = self.random.choice(teams)
        ranks = self.made.teams[team]["ranks"]
        rank = self.random.choice(ranks)
        # Under check a refused collective is told to the others; here only its rank may know.
        if self.made.job["check"] or self.chance(0.3):
            self.step_team(ranks=list(ranks))
            self.incident(name, "refuse", rank, [], what=self.random.choice(["twice", "unknown"]))
            return True
        self.gather_of_size(team)
        self.incident(name, "refuse", rank, [],
                      what=self.random.choice(["null", "outside", "past", "huge", "overlap"]))
        return True

    def gather_of_size(self, team):
        """A gather whose arguments can be made wrong in every way."""
        window = self.step_window(team, shares=2,
                                  size=self.random.choice([64, 1000, 20000, 65536]))
        count = len(self.made.teams[team]["ranks"])
        size = min(self.random.choice([64, 100, 1000, 20000]),
                   (self.windows[window]["bytes"] - 2 * GUARD) // count // 2)
        self.step("gather", self.members(team), team=team, window=window, at=GUARD, bytes=size,
                  place="apart", policy=0)

    def strike_refuse_checked(self, name):
        teams = self.well(2)
        if not teams or not self.made.job["check"]:
            return False
        team = self.random.choice(teams)
        self.gather_of_size(team)
        self.incident(name, "refuse_checked",
                      self.random.choice(self.made.teams[team]["ranks"]), [],
                      what=self.random.choice(["null", "outside", "past", "huge", "overlap"]))
        return True

    def strike_differ(self, name):
        teams = self.well(2)
        if not teams:
            return False
        team = self.random.choice(teams)
        rank = self.random.choice(self.made.teams[team]["ranks"])
        if self.made.job["check"] and self.chance(0.5):
            self.gather_of_size(team)
            self.incident(name, "differ", rank, [], what="longer")
        else:
            del self.windows[self.step_window(team)]
            bytes_ = self.made.steps[-1]["bytes"]
            self.incident(name, "differ", rank, [],
                          bytes=self.random.choice([0, 1, bytes_ + 1, bytes_ * 2, 2**45]))
        return True

    def strike_fault(self, name):
        teams = self.well(2)
        if not teams:
            return False
        team = self.random.choice(teams)
        ranks = self.made.teams[team]["ranks"]
        rank = self.random.choice(ranks)
        guilty = self.process_of(rank)
        function, error, hard = self.random.choice(FAULTS[name])
        lasting = self.chance(0.3) and error != "EINTR"  # whoever is interrupted tries again
        self.fence()
        since = self.k
        struck = self.struck_step(team, {"map": ["window", "window", "team"],
                                         "thread": ["stream"]}.get(name))
        self.incident(name, "fault", rank, guilty, call=function, errno=getattr(errno, error),
                      nth=self.random.choice([1, 1, 1, 1, 2, 2, 3, 4, 6, 10]),
                      lasting=int(lasting), hard=int(hard))
        self.fence()
        self.doomed_steps(team)
        if struck != team and self.chance(0.5):
            self.step_barrier(struck)
        self.fence()
        if hard:
            self.outcasts |= set(guilty)
            self.drop(guilty)
        else:
            self.good_teams.remove(team)
            self.plans = {plan: about for plan, about in self.plans.items()
                          if about["team"] != team}
        # A window of then may not exist everywhere.
        self.windows = {window: about for window, about in self.windows.items()
                        if about["k"] <= since}
        self.recover()
        return True

    def strike(self, name):
        methods = {"kill": self.strike_dead, "exit": self.strike_dead, "two": self.strike_dead}
        if name in FAULTS:
            return self.strike_fault(name)
        return methods.get(name, getattr(self, f"strike_{name}", None))(name)

    def start_badly(self, name):
        """An incident within zcta_init(): then a barrier shows who is there."""
        rank = self.random.randrange(self.made.job["rank_count"])
        guilty = self.process_of(rank)
        if name == "init_kill":
            self.incident(name, "kill", rank, guilty, delay_us=int(10 ** self.random.uniform(2, 5)))
            self.dead |= set(guilty)
        else:
            function, error, hard = self.random.choice(FAULTS[name])
            # A queue that stays full is the other end's fault.
            self.incident(name, "fault", rank, guilty, call=function, errno=getattr(errno, error),
                          nth=int(10 ** self.random.uniform(0, 1.5)),
                          lasting=int(self.chance(0.3) and error != "EAGAIN"), hard=int(hard))
        self.step_barrier(0)

    def end(self):
        here = [rank for rank in range(self.made.job["rank_count"]) if rank not in self.dead]
        for op in ("fence", "mark", "fence", "final", "fence"):
            self.step(op, here)

    def make(self):
        slow = self.chance(0.3)
        names = [name for name, about in KINDS.items() if about[1] == slow]
        if slow:
            names += ["kill"]
        weights = [KINDS[name][0] for name in names]
        self.lay_out(slow)
        first = self.random.choices(names, weights)[0]
        if first.startswith("init_"):
            self.start_badly(first)
            return self.made.finish()
        count = self.random.choice([1, 1, 1, 2]) if slow else self.random.choice([0, 1, 1, 2, 3])
        for _ in range(self.random.randint(2, 8)):
            self.some_step()
        for i in range(count):
            name = first if i == 0 else self.random.choices(names, weights)[0]
            tries = 0
            while name.startswith("init_") or not self.strike(name):
                tries += 1
                if tries > 20:
                    break
                name = self.random.choices(names, weights)[0]
            for _ in range(self.random.randint(1, 6)):
                if self.alive():
                    self.some_step()
        self.end()
        return self.made.finish()


def make(seed):
    return Maker(seed).make()


if __name__ == "__main__":
    import sys
    print(make(int(sys.argv[1])).text(), end="")
