# Judges what the ranks of a job wrote down, without the job: reads a folder with a schedule, a history
# of each rank, what each process had left, and how it ended.
#
# The rules:
#   bytes     no call says OK and has wrong bytes, or bytes around them
#   together  no collective says OK to a rank before every rank of it has begun
#   cause     a call fails only where the schedule has made a rank fail by then; others succeed
#   culprit   an error names such a rank, never a healthy one, but for one that such a rank held up
#   agreed    all ranks name the same rank for a team's failure; none takes a failed team for well
#   whole     a call that some ranks finish and some do not leaves a failed team behind
#   time      every call comes back within its deadline and a bound; a death is seen at once
#   sentence  every error has its own sentence
#   ending    every process ends as the schedule says, and leaves nothing behind
#
# Bounds on time are there to tell a call that hangs from one that does not, on any machine.
import json
import os

import schedule as schedules

STATUSES = ["OK", "ERR_INVALID", "ERR_NO_MEMORY", "ERR_SYSTEM", "ERR_ENVIRONMENT",
            "ERR_RENDEZVOUS", "ERR_TIMEOUT", "ERR_PEER", "ERR_MISMATCH", "ERR_NOT_IN_WINDOW",
            "ERR_POLICY", "ERR_UNSUPPORTED", "ERR_BUSY", "ERR_DEVICE"]
OK, INVALID, NO_MEMORY, RENDEZVOUS, TIMEOUT, PEER, MISMATCH, NOT_IN_WINDOW, UNSUPPORTED = \
    0, 1, 2, 5, 6, 7, 8, 9, 11

FINALIZE = 2**32 - 1  # its number as a step
DEATHS = {"kill", "exit"}
COLLECTIVE = {"gather", "stream", "run", "barrier", "team", "split", "window", "window_free",
              "destroy"}
MAKING = {"team", "split"}
ODD_WORDS = ["Sanitizer", "runtime error", "Assertion", "corrupted", "double free",
             "stack smashing"]


class Call:
    """What one rank wrote about one step."""

    def __init__(self):
        self.begin = self.end = self.status = self.incident = self.skip = self.what = None
        self.team, self.error, self.outputs, self.refused = (0, -1), None, [], []

    def failed(self):
        return self.status not in (None, OK)


class Story:
    """All histories of a job."""

    def __init__(self, folder, slack_s):
        with open(os.path.join(folder, "schedule")) as file:
            self.schedule = schedules.parse(file.read())
        self.folder, self.slack_ns = folder, int(slack_s * 1e9)
        self.deadline_ns = self.schedule.job["deadline_ms"] * 1000000
        self.ranks = range(self.schedule.job["rank_count"])
        self.calls = {rank: {} for rank in self.ranks}
        self.finals = {rank: {} for rank in self.ranks}
        self.lines = []  # (time, rank, line) of everything
        self.problems = []
        for rank in self.ranks:
            self.read_history(rank)
        self.find_incidents()

    def say(self, rule, text):
        self.problems.append(f"{rule}: {text}")

    # ---- Reading ----

    def read_history(self, rank):
        path = os.path.join(self.folder, f"history.{rank}")
        if not os.path.exists(path):
            return
        with open(path, "rb") as file:
            rows = file.read().split(b"\n")
        for number, row in enumerate(rows):
            if not row:
                continue
            try:
                self.take(rank, json.loads(row))
            except ValueError:
                # A rank that is killed may lose half of its last line.
                if number < len(rows) - 1:
                    self.say("ending", f"rank {rank} wrote a line that is none: {row[:80]}")

    def take(self, rank, line):
        if "final" in line:
            self.finals[rank][line["final"]] = line["error"]
            self.lines.append((line["at"], rank, line))
            return
        call = self.calls[rank].setdefault(line["k"], Call())
        for name in ("begin", "skip", "what"):
            if name in line:
                setattr(call, name, line[name])
        if "incident" in line:
            call.incident = min(line["incident"], call.incident or line["incident"])
        if "refused" in line:
            call.refused.append(line)
        if "end" in line:
            call.end, call.status, call.team = line["end"], line["status"], line["team"]
            call.error, call.outputs = line["error"], line["outputs"]
        time = next(line[name] for name in ("begin", "end", "skip", "incident", "refused")
                    if name in line)
        self.lines.append((time, rank, line))

    def find_incidents(self):
        """When each incident happened, if it did."""
        self.happened, self.died = [], {}
        for incident in self.schedule.incidents:
            call = self.calls[incident["rank"]].get(incident["k"])
            time = call.incident if call else None
            if time is None:
                continue
            self.happened.append((time, incident))
            if incident["kind"] in DEATHS:
                for rank in incident["guilty"]:
                    self.died[rank] = min(time, self.died.get(rank, time))
        self.left = {incident["rank"]: time for time, incident in self.happened
                     if incident["kind"] == "leave"}

    # ---- What is known ----

    def call(self, rank, k):
        return self.calls[rank].get(k) or Call()

    def lives(self, rank):
        return rank not in self.died

    def members(self, team):
        return self.schedule.teams[team]["ranks"]

    def guilty_by(self, time, ranks):
        """Incidents by which one of these ranks may be named, then."""
        return [incident for at, incident in self.happened
                if at <= time and set(incident["guilty"]) & set(ranks)]

    def possible_by(self, time, ranks):
        return {rank for incident in self.guilty_by(time, ranks) for rank in incident["guilty"]
                } & set(ranks)

    def ranks_of(self, step):
        if step["op"] == "split":
            return self.members(step["team"])
        return self.members(step["team"]) if "team" in step else list(self.ranks)

    def incident_at(self, k, *kinds):
        return next((incident for incident in self.schedule.incidents
                     if incident["k"] == k and incident["kind"] in kinds), None)

    def joined(self, rank):
        return self.call(rank, 0).status == OK


def name(status):
    return STATUSES[status] if 0 <= status < len(STATUSES) else str(status)


def where(step, rank):
    team = f" of team {step['team']}" if "team" in step else ""
    return f"rank {rank}, step {step['k']} ({step['op']}{team})"


# ---- Rules for one call ----

def judge_outputs(story, step, rank, call):
    if step["op"] not in ("gather", "stream", "run"):
        return
    line = step
    if step["op"] == "run":
        line = next(other for other in story.schedule.steps
                    if other["op"] == "plan" and other["plan"] == step["plan"])
    seed, size = story.schedule.job["seed"], line["bytes"]
    if len(call.outputs) != step.get("count", 1):
        story.say("bytes", f"{where(step, rank)}: {len(call.outputs)} outputs")
    for index, (*hashes, guarded) in enumerate(call.outputs):
        for source, found in zip(story.members(line["team"]), hashes):
            wanted = f"{schedules.model_crc(seed, source, step['k'], index, size):08x}"
            if found != wanted:
                story.say("bytes", f"{where(step, rank)}: OK, but the part of rank {source} "
                          f"{tell_bytes(story, line, step, source, index, size, found)}")
        if not guarded:
            story.say("bytes", f"{where(step, rank)}: bytes around the output were written")


def tell_bytes(story, line, step, source, index, size, found):
    """What is there instead."""
    import zlib
    if found == f"{zlib.crc32(bytes([0xee]) * size):08x}":
        return "never came"
    seed = story.schedule.job["seed"]
    for other in story.schedule.steps:
        if other["op"] in ("gather", "stream", "run"):
            for rank in story.ranks:
                for at in range(4):
                    if f"{schedules.model_crc(seed, rank, other['k'], at, size):08x}" == found:
                        return f"is what rank {rank} gave in step {other['k']}"
    return "is neither that nor anything else whole"


def judge_time(story, step, rank, call):
    stops = [incident for _, incident in story.happened if incident["kind"] == "stop_long"
             and rank in incident["guilty"]
             and incident["k"] <= step["k"] <= incident["until"]]
    if stops:
        return
    if call.end - call.begin > story.deadline_ns + story.slack_ns:
        story.say("time", f"{where(step, rank)}: came back after "
                  f"{(call.end - call.begin) / 1e9:.1f} s")
    if call.failed() and call.status == PEER:
        deaths = [time for gone, time in story.died.items() if gone == call.error[1]]
        late = call.end - max(deaths + [call.begin])
        if deaths and late > story.slack_ns:
            story.say("time", f"{where(step, rank)}: was told of a death after {late / 1e9:.1f} s")


def judge_sentence(story, step, rank, status, error):
    if not error[3] or not error[2]:
        story.say("sentence", f"{where(step, rank)}: {name(status)} without a sentence")
    elif error[0] != status:
        story.say("sentence", f"{where(step, rank)}: {name(status)} with the sentence of "
                  f"{name(error[0])}: {error[3]}")


def right_statuses(story, incident):
    if incident["kind"] in DEATHS and incident["k"] == 0:
        return {PEER, TIMEOUT, RENDEZVOUS}
    if incident["kind"] in DEATHS:
        slow = story.schedule.job["deadline_ms"] <= schedules.SLOW_DEADLINE_MS
        return {PEER, TIMEOUT} if slow else {PEER}
    if incident["kind"] == "stop_long":
        return {TIMEOUT}
    if incident["kind"] == "absent":
        return {TIMEOUT, MISMATCH}
    if incident["kind"] == "leave":
        return {PEER, TIMEOUT, MISMATCH}
    return set(range(1, len(STATUSES)))


def was_held(story, named, call):
    """Whether an incident held that rank in another call while this one waited for it, for most of
    a deadline."""
    for k, other in story.calls[named].items():
        if other.begin is None or other.end is None or not other.failed():
            continue
        held = min(other.end, call.end) - max(other.begin, call.begin)
        if held > 0.5 * story.deadline_ns and story.guilty_by(other.end, story.ranks):
            return True
    return False


def find_held_up(story):
    """(team, rank) of who is to be named though it is well: others waited for it in vain."""
    for rank in story.ranks:
        for k, call in story.calls[rank].items():
            step = story.schedule.step(k) or {}
            if call.status == TIMEOUT and call.error[1] in story.ranks and \
                    was_held(story, call.error[1], call):
                yield step.get("team", 0), call.error[1]


def judge_error(story, step, rank, call):
    """A call that failed: who may be named, and how."""
    ranks = story.ranks_of(step)
    named = call.error[1]
    guilty = story.guilty_by(call.end, ranks)
    told = f"{where(step, rank)}: {name(call.status)} «{call.error[3]}»"
    judge_sentence(story, step, rank, call.status, call.error)
    if call.status == TIMEOUT and (step.get("team", 0), named) in story.held_up:
        return
    if not guilty:
        story.say("cause", f"{told}, and nothing has happened to any rank of it")
        return
    if named not in story.possible_by(call.end, ranks):
        story.say("culprit", f"{told} names rank {named}; guilty can be "
                  f"{sorted(story.possible_by(call.end, ranks))}")
        return
    if not any(call.status in right_statuses(story, incident) for incident in guilty
               if named in incident["guilty"]):
        story.say("culprit", f"{told}: not what that is called")
    # A rank that has no memory may say so before it looks at the team.
    own = named == rank and call.status not in (PEER, TIMEOUT)
    if call.team[0] != OK and call.team[1] != named and not own:
        story.say("agreed", f"{told}, but the team says rank {call.team[1]}")
    struck = any(incident["k"] == step["k"] or call.begin <= time <= call.end
                 for time, incident in story.happened if incident in guilty)
    if call.team[0] == OK and not struck and call.status != MISMATCH and step["op"] not in MAKING and step["k"] != FINALIZE:
        story.say("cause", f"{told}, though the team is well and the fault is over")


def judge_together(story, step, rank, call):
    if step["op"] not in COLLECTIVE or step.get("bytes") == 0:
        return
    if step["op"] in ("window_free", "destroy") and \
            story.possible_by(call.end, story.ranks_of(step)):
        return
    for other in story.ranks_of(step):
        begin = story.call(other, step["k"]).begin
        if begin is None or begin > call.end:
            story.say("together", f"{where(step, rank)}: OK, though rank {other} had not begun it")


def judge_differing(story, step, rank, call, incident):
    """A call in which one rank gives other arguments, where the ranks compare them."""
    odd = incident["rank"]
    told = f"{where(step, rank)}, where rank {odd} differs: {name(call.status)}"
    if incident["kind"] == "refuse_checked":
        right = {INVALID, NOT_IN_WINDOW} if rank == odd else {MISMATCH}
    elif incident.get("bytes") == 0:
        right = {INVALID}
    elif incident.get("bytes") == 2**45:
        right = {NO_MEMORY}
    else:
        right = {MISMATCH}
    if call.status not in right:
        story.say("cause", f"{told}; expected {'/'.join(map(name, sorted(right)))}")
        return
    judge_sentence(story, step, rank, call.status, call.error)
    two = len(story.members(step["team"])) == 2
    if call.error[1] != odd and not (two and call.status == MISMATCH):
        story.say("culprit", f"{told} names rank {call.error[1]}")
    if call.team[0] != OK:
        story.say("cause", f"{told}, and the team has failed by it")


def judge_call(story, step, rank, call):
    judge_time(story, step, rank, call)
    incident = story.incident_at(step["k"], "refuse_checked", "differ")
    apart = step.get("register") and len({tuple(process["ranks"])
                                          for process in story.schedule.processes
                                          for member in story.members(step["team"])
                                          if member in process["ranks"]}) > 1
    if incident and call.failed() and story.guilty_by(call.end, story.ranks_of(step)):
        return
    if incident:
        judge_differing(story, step, rank, call, incident)
    elif apart and call.status == UNSUPPORTED:
        judge_sentence(story, step, rank, call.status, call.error)
    elif apart and call.status == OK:
        story.say("cause", f"{where(step, rank)}: OK, though the ranks are several processes")
    elif step["op"] == "leave":
        pass  # it cannot be known whom it waited for
    elif call.failed():
        judge_error(story, step, rank, call)
    else:
        judge_outputs(story, step, rank, call)
        judge_together(story, step, rank, call)


# ---- Rules for a rank ----

def may_lack(story, step, rank):
    """Whether something that the step needs may be missing here, because its making failed."""
    for other in story.schedule.steps:
        made = other["op"] == "team" and other["team"] == step.get("team") or \
            other["op"] == "split" and step.get("team") in other["parts"] or \
            other["op"] == "window" and other["window"] == step.get("window") or \
            other["op"] == "plan" and other["plan"] == step.get("plan")
        call = story.call(rank, other["k"])
        if made and rank in other["ranks"] and other["k"] < step["k"] and \
                (call.failed() or call.skip is not None or call.begin is None):
            return True
    return False


def judge_step(story, step, rank):
    call = story.call(rank, step["k"])
    incident = story.incident_at(step["k"], "absent")
    if step["op"] in ("fence", "mark", "final") or incident and incident["rank"] == rank:
        return
    if call.skip is not None:
        if not may_lack(story, step, rank):
            story.say("cause", f"{where(step, rank)}: {call.what or 'not made'}, for no reason")
    elif call.begin is None or call.end is None:
        if story.lives(rank):
            story.say("time", f"{where(step, rank)}: "
                      f"{'never begun' if call.begin is None else 'did not come back'}")
    else:
        judge_call(story, step, rank, call)
        refusal = story.incident_at(step["k"], "refuse")
        if refusal and refusal["rank"] == rank:
            judge_refusal(story, step, rank, call)


def judge_refusal(story, step, rank, call):
    if len(call.refused) != 1:
        story.say("cause", f"{where(step, rank)}: no call was refused")
    for refused in call.refused:
        if refused["status"] not in (INVALID, NOT_IN_WINDOW) and not call.failed():
            story.say("cause", f"{where(step, rank)}: wrong arguments give "
                      f"{name(refused['status'])}")
        elif refused["status"] != OK:
            judge_sentence(story, step, rank, refused["status"], refused["error"])


def judge_rank(story, rank):
    story.current = rank
    init = story.call(rank, 0)
    step = {"k": 0, "op": "init", "ranks": list(story.ranks)}
    if init.end is None:
        if story.lives(rank):
            story.say("time", f"rank {rank}: zcta_init() did not come back")
        return
    judge_time(story, step, rank, init)
    if init.failed():
        judge_error(story, step, rank, init)
        return
    for step in story.schedule.steps:
        if rank in step["ranks"]:
            judge_step(story, step, rank)
    if story.lives(rank) and rank not in story.left:
        judge_finalize(story, rank)


def judge_finalize(story, rank):
    step = {"k": FINALIZE, "op": "finalize", "team": 0, "ranks": list(story.ranks)}
    call = story.call(rank, FINALIZE)
    if call.end is None:
        story.say("time", f"rank {rank}: zcta_finalize() did not come back")
        return
    judge_time(story, step, rank, call)
    if call.failed():
        judge_error(story, step, rank, call)


# ---- Rules for a team ----

def several_died(story, team, time):
    """Ranks agree on one of several dead by what they share, which a team in the making has not."""
    return len([rank for rank in story.members(team) if story.died.get(rank, time) < time]) > 1


def tellers(story, team):
    """(rank, whom it blames) of all that live and have seen this team fail. A team that was never made is
    nobody's yet: what keeps a rank from making it may be that rank's own trouble, and another's, too."""
    for rank in story.members(team):
        if not story.lives(rank):
            continue
        for k, call in story.calls[rank].items():
            step = story.schedule.step(k)
            if step is None or call.status is None or step["op"] == "leave":
                continue
            if step.get("team") == team and step["op"] != "split" and call.team[0] != OK:
                yield rank, call.team[1]
            elif step["op"] == "team" and step["team"] == team and call.failed() and \
                    call.error[1] != rank and not several_died(story, team, call.end):
                yield rank, call.error[1]
        final = story.finals[rank].get(team)
        if final and final[0] != OK:
            yield rank, final[1]


def judge_team(story, team):
    blamed = {}
    for rank, culprit in tellers(story, team):
        blamed.setdefault(culprit, set()).add(rank)
    if len(blamed) > 1:
        story.say("agreed", f"team {team}: " + "; ".join(
            f"ranks {sorted(ranks)} name rank {culprit}" for culprit, ranks in blamed.items()))
    states = {rank: finals[team][0] for rank, finals in story.finals.items() if team in finals}
    well = [rank for rank, status in states.items() if status == OK]
    if well and len(well) < len(states):
        story.say("agreed", f"team {team} has failed, but not on ranks {well}")


def judge_whole(story, step):
    """A collective that only some ranks finished."""
    if step["op"] not in COLLECTIVE or step.get("bytes") == 0 or \
            story.incident_at(step["k"], "refuse_checked", "differ"):
        return
    calls = {rank: story.call(rank, step["k"]) for rank in step["ranks"] if story.lives(rank)}
    done = [rank for rank, call in calls.items() if call.status == OK]
    undone = [rank for rank, call in calls.items() if call.failed()]
    if not done or not undone:
        return
    parts = step["parts"] if step["op"] == "split" else [step["team"]]
    for team in parts:
        for rank in done:
            final = story.finals[rank].get(team)
            if final and final[0] == OK and set(undone) & set(story.members(team)):
                story.say("whole", f"step {step['k']} ({step['op']} of team {team}): OK on ranks "
                          f"{done}, failed on ranks {undone}, and the team is well on rank {rank}")
                return


# ---- Rules for a process ----

def wanted_endings(story, process):
    codes = set()
    for _, incident in story.happened:
        if incident["rank"] in process["ranks"] and incident["kind"] in DEATHS:
            codes.add(-9 if incident["kind"] == "kill" else 7)
    return codes or {0}


def judge_process(story, process):
    which, ranks = process["id"], process["ranks"]
    path = os.path.join(story.folder, f"code.{which}")
    code = int(open(path).read()) if os.path.exists(path) else None
    if code not in wanted_endings(story, process):
        story.say("ending", f"the process of ranks {ranks} ended with {code}, not with "
                  f"{sorted(wanted_endings(story, process))}")
    with open(os.path.join(story.folder, f"stderr.{which}"), errors="replace") as file:
        for line in file:
            if any(word in line for word in ODD_WORDS):
                story.say("ending", f"the process of ranks {ranks} says: {line.strip()}")
                break
    if code == 0:
        judge_left(story, process)


def judge_left(story, process):
    path = os.path.join(story.folder, f"left.{process['id']}")
    text = open(path).read() if os.path.exists(path) else ""
    if not text:
        story.say("ending", f"the process of ranks {process['ranks']} did not tell what it leaves")
        return
    for what, (before, after) in json.loads(text).items():
        if after > before:
            story.say("ending", f"the process of ranks {process['ranks']} leaves {after - before} "
                      f"{what} behind")


def judge(folder, slack_s=15):
    """Returns the story with its problems."""
    story = Story(folder, slack_s)
    story.held_up = set(find_held_up(story))
    for rank in story.ranks:
        judge_rank(story, rank)
    for team in story.schedule.teams:
        judge_team(story, team)
    for step in story.schedule.steps:
        judge_whole(story, step)
    for process in story.schedule.processes:
        judge_process(story, process)
    return story


# ---- Telling ----

def tell_step(story, k):
    step = story.schedule.step(k)
    if k == 0:
        return "init"
    if step is None:
        return "finalize"
    facts = " ".join(f"{key}={schedules.show(value)}" for key, value in step.items()
                     if key not in ("k", "op", "ranks", "policy"))
    return f"step {k} {step['op']} {facts}"


def tell_line(story, line):
    if "final" in line:
        error = line["error"]
        state = "well" if error[0] == OK else f"{name(error[0])}, rank {error[1]}: {error[3]}"
        return f"at the end team {line['final']} is {state}"
    text = tell_step(story, line["k"])
    if "begin" in line:
        return f"begins {text}"
    if "skip" in line:
        return f"skips {text}: {line['why']}"
    if "incident" in line:
        incident = next(incident for incident in story.schedule.incidents
                        if incident["k"] == line["k"])
        return f"INCIDENT in {text}: {line.get('what', incident['kind'])}"
    error = line["error"]
    outcome = name(line["status"]) + (f", rank {error[1]}: {error[3]}" if line["status"] else "")
    if "refused" in line:
        return f"is refused in {text}: {outcome}"
    state = "" if line["team"][0] == OK else f" [team: {name(line['team'][0])}, rank " \
        f"{line['team'][1]}]"
    return f"ends   {text}: {outcome}{state}"


def tell(story):
    """The story as text, in the order of time."""
    schedule = story.schedule
    rows = [f"{schedule.job['rank_count']} ranks, deadline {schedule.job['deadline_ms']} ms, "
            f"check {schedule.job['check']}; processes "
            + " ".join(str(process["ranks"]) for process in schedule.processes)]
    rows += [f"team {team['id']} ({team['title']}): ranks {team['ranks']}"
             for team in schedule.teams.values()]
    rows += ["incident: " + " ".join(f"{key}={schedules.show(value)}"
                                     for key, value in incident.items())
             for incident in schedule.incidents]
    lines = sorted(story.lines, key=lambda entry: entry[0])
    start = lines[0][0] if lines else 0
    rows += [f"{(time - start) / 1e6:12.3f} ms  rank {rank}  {tell_line(story, line)}"
             for time, rank, line in lines]
    return "\n".join(rows)


if __name__ == "__main__":
    import sys
    judged = judge(sys.argv[1])
    print(tell(judged))
    print("\n".join(judged.problems) or "nothing is wrong")
    sys.exit(1 if judged.problems else 0)
