#!/usr/bin/env python3
# The judge of histories, judged: a job that went as it should is right, and each way in which its
# history can be made wrong is found, by the rule that is for it. The history is made up here.
import copy
import json
import os
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import judge  # noqa: E402
import schedule as schedules  # noqa: E402

# Rank 2 dies in step 3; ranks 0 and 1 go on. Rank 1 is refused in step 6 before it calls rightly.
SCHEDULE = """\
job seed=5 rank_count=3 deadline_ms=20000 check=0
process id=0 ranks=0
process id=1 ranks=1
process id=2 ranks=2
team id=0 title=world policy=0 ranks=0,1,2
team id=1 title=t1 policy=0 ranks=1,0
step k=1 op=window team=0 window=0 bytes=9000 ranks=0,1,2
step k=2 op=gather team=0 window=0 at=64 bytes=1000 place=own policy=0 ranks=0,1,2
step k=3 op=gather team=0 window=0 at=64 bytes=1000 place=own policy=0 ranks=0,1,2
step k=4 op=barrier team=0 ranks=0,1,2
step k=5 op=team team=1 ranks=0,1
step k=6 op=gather team=1 window=0 at=64 bytes=1000 place=own policy=0 ranks=0,1
step k=7 op=fence ranks=0,1
step k=8 op=mark ranks=0,1
step k=9 op=fence ranks=0,1
step k=10 op=final ranks=0,1
step k=11 op=fence ranks=0,1
incident k=3 name=kill kind=kill rank=2 guilty=2 delay_us=300
incident k=6 name=refuse kind=refuse rank=1 guilty= what=null
"""
MS = 1000000
NAMED = [judge.PEER, 2, "collective", "rank 2 (pid 12) ended without leaving the job"]
NOTHING = [judge.OK, 0, "", ""]


def at(k, rank):
    return 1000 * MS + k * 10 * MS + rank * 1000


def begin(k, rank):
    return {"k": k, "begin": at(k, rank)}


def well(k, rank, outputs=()):
    return {"k": k, "end": at(k, rank) + 5 * MS, "status": judge.OK, "team": [judge.OK, -1],
            "error": NOTHING, "outputs": list(outputs)}


def failed(k, rank):
    return {"k": k, "end": at(k, rank) + 5 * MS, "status": judge.PEER, "team": [judge.PEER, 2],
            "error": NAMED, "outputs": []}


def output(k, team):
    return [*(f"{schedules.model_crc(5, rank, k, 0, 1000):08x}" for rank in team), True]


def history(rank):
    lines = [begin(0, rank), well(0, rank), begin(1, rank), well(1, rank), begin(2, rank),
             well(2, rank, [output(2, [0, 1, 2])]), begin(3, rank)]
    if rank == 2:
        return lines + [{"k": 3, "incident": at(3, 2) + MS}]
    lines += [failed(3, rank), begin(4, rank), failed(4, rank), begin(5, rank), well(5, rank)]
    if rank == 1:
        lines += [{"k": 6, "incident": at(6, 1)},
                  {"k": 6, "refused": at(6, 1), "status": judge.INVALID,
                   "error": [judge.INVALID, 1, "all_gather", "recv is NULL"]}]
    lines += [begin(6, rank), well(6, rank, [output(6, [1, 0])]),
              {"final": 0, "at": at(10, rank), "error": NAMED},
              {"final": 1, "at": at(10, rank), "error": NOTHING}]
    return lines + [begin(judge.FINALIZE, rank) | {"begin": at(12, rank)},
                    well(judge.FINALIZE, rank) | {"end": at(12, rank) + MS}]


class Job:
    """All files of a job, as things that can be changed."""

    def __init__(self):
        self.histories = [history(rank) for rank in range(3)]
        self.codes = [0, 0, -9]
        self.stderr = ["", "", ""]
        self.stray = ["", "", '{"k":4,"beg']  # rank 2 dies while it writes
        self.left = [{"files": [9, 9], "threads": [1, 1], "mappings": [0, 0]} for _ in range(3)]

    def line(self, rank, k, name):
        return next(line for line in self.histories[rank] if line.get("k") == k and name in line)

    def write(self, folder):
        def write(name, text):
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)
        write("schedule", SCHEDULE)
        for i in range(3):
            write(f"history.{i}", "".join(json.dumps(line) + "\n" for line in self.histories[i])
                  + self.stray[i])
            write(f"code.{i}", str(self.codes[i]))
            write(f"stderr.{i}", self.stderr[i])
            write(f"left.{i}", json.dumps(self.left[i]) if self.codes[i] == 0 else "")


def problems_of(job):
    with tempfile.TemporaryDirectory() as folder:
        job.write(folder)
        return judge.judge(folder).problems


# ---- What is right, too ----

def held_up(job):
    """Rank 1 learns late of the death, and rank 0 waits for it as long as it may."""
    missed = [judge.TIMEOUT, 1, "zcta_team_get", "rank 1 did not join the team within 20 s"]
    job.line(1, 4, "end")["end"] += 12000 * MS
    job.line(1, 5, "begin")["begin"] += 12000 * MS
    for rank in (0, 1):
        job.line(rank, 5, "end").update(status=judge.TIMEOUT, error=missed,
                                        end=at(5, rank) + 20000 * MS)
        job.histories[rank] = [line for line in job.histories[rank]
                               if line.get("k") != 6 and line.get("final") != 1]
        job.histories[rank].append({"k": 6, "skip": at(6, rank), "why": "no team"})


# ---- What can be wrong: each changes a right job ----

def wrong_bytes(job):
    job.line(1, 2, "end")["outputs"][0][2] = "00000000"


def bytes_around(job):
    job.line(0, 2, "end")["outputs"][0][-1] = False


def no_output(job):
    job.line(0, 6, "end")["outputs"] = []


def ok_alone(job):
    job.line(0, 3, "end").update(well(3, 0, [output(3, [0, 1, 2])]))
    job.line(1, 3, "end").update(well(3, 1, [output(3, [0, 1, 2])]))
    for rank in (0, 1):
        job.histories[rank] = [line for line in job.histories[rank]
                               if line.get("k") != 4 or rank == 2]
    job.line(2, 3, "begin")["begin"] += 8 * MS


def early_end(job):
    job.line(0, 2, "end")["end"] = job.line(1, 2, "begin")["begin"] - 1


def failure_without_a_cause(job):
    job.line(0, 6, "end").update(failed(6, 0), error=[judge.TIMEOUT, 1, "collective", "late"],
                                 status=judge.TIMEOUT)


def failure_before_its_cause(job):
    job.line(0, 3, "end")["end"] = job.line(2, 3, "incident")["incident"] - 1


def healthy_rank_named(job):
    for k in (3, 4):
        job.line(0, k, "end").update(team=[judge.PEER, 1],
                                     error=[judge.PEER, 1, "collective", "rank 1 ended"])


def two_named(job):
    job.histories[0] = [line | {"error": NAMED[:1] + [1] + NAMED[2:]}
                        if line.get("final") == 0 else line for line in job.histories[0]]


def death_called_lateness(job):
    job.line(0, 3, "end").update(status=judge.TIMEOUT, error=[judge.TIMEOUT] + NAMED[1:])


def team_says_another(job):
    job.line(0, 3, "end")["team"] = [judge.PEER, 0]


def not_heard_of(job):
    job.histories[1] = [line | {"error": NOTHING} if line.get("final") == 0 else line
                        for line in job.histories[1]]


def half_made(job):
    error = [judge.PEER, 2, "zcta_team_get", "rank 2 ended"]
    job.line(0, 5, "end").update(status=judge.PEER, error=error)


def call_without_an_end(job):
    job.histories[0].remove(job.line(0, 6, "end"))


def step_left_out(job):
    for name in ("begin", "end"):
        job.histories[0].remove(job.line(0, 6, name))


def late_end(job):
    job.line(0, 6, "end")["end"] += 60000 * MS


def death_seen_late(job):
    job.line(0, 3, "end")["end"] += 19000 * MS


def no_sentence(job):
    job.line(0, 3, "end")["error"] = [judge.PEER, 2, "collective", ""]


def older_sentence(job):
    job.line(0, 3, "end")["error"] = [judge.INVALID, 2, "all_gather", "recv is NULL"]


def refusal_without_a_sentence(job):
    job.line(1, 6, "refused")["error"] = [judge.OK, 0, "", ""]


def wrong_arguments_accepted(job):
    job.line(1, 6, "refused")["status"] = judge.OK


def skipped_for_no_reason(job):
    job.histories[0].remove(job.line(0, 6, "begin"))
    index = job.histories[0].index(job.line(0, 6, "end"))
    job.histories[0][index] = {"k": 6, "skip": at(6, 0), "why": "no window"}


def no_finalize(job):
    job.histories[0].remove(job.line(0, judge.FINALIZE, "end"))


def crash(job):
    job.codes[0] = -11


def sanitizer(job):
    job.stderr[1] = "==12==ERROR: AddressSanitizer: heap-use-after-free\n"


def files_left(job):
    job.left[0]["files"][1] += 1


def mappings_left(job):
    job.left[1]["mappings"][1] = 1


def garbled_line(job):
    job.stray[0] = "what is this\n"


WRONGS = {
    "bytes": [wrong_bytes, bytes_around, no_output],
    "together": [ok_alone, early_end],
    "cause": [failure_without_a_cause, failure_before_its_cause, skipped_for_no_reason,
              wrong_arguments_accepted],
    "culprit": [healthy_rank_named, death_called_lateness],
    "agreed": [two_named, team_says_another, not_heard_of],
    "whole": [half_made],
    "time": [call_without_an_end, step_left_out, late_end, death_seen_late, no_finalize],
    "sentence": [no_sentence, older_sentence, refusal_without_a_sentence],
    "ending": [crash, sanitizer, files_left, mappings_left, garbled_line],
}


def main():
    failures = 0
    right, count = Job(), 0
    for change in (lambda job: None, held_up):
        job, count = copy.deepcopy(right), count + 1
        change(job)
        problems = problems_of(job)
        if problems:
            failures += 1
            print("FAILED: a right history is judged wrong:", *problems, sep="\n  ")
    for rule, wrongs in WRONGS.items():
        for wrong in wrongs:
            job, count = copy.deepcopy(right), count + 1
            wrong(job)
            problems = problems_of(job)
            if not any(problem.startswith(rule + ":") for problem in problems):
                failures += 1
                print(f"FAILED: {wrong.__name__} is not found by the rule «{rule}»:", *problems,
                      sep="\n  ")
    print(f"{count - failures} of {count} histories were judged rightly")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
