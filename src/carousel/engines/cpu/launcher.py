"""The code that deals jobs to threads, in LLVM's language.

It is our own because an OpenMP runtime calls a C function in each of its threads, and Python could be none.
"""

from __future__ import annotations

from carousel.engines.cpu.target import Target

# What Python hands to the launcher: words of 64 bits. The first five are functions of the OpenMP runtime.
FORK, NUMBER, COUNT, IDENTITY, PUSH, THREADS, STARTED, BARRIERS, JOBS, LIST = range(10)


def _word(name: str, index: int, kind: str = "i64") -> str:
    return f"%{name}_at = getelementptr i64, ptr %data, i64 {index}\n  %{name} = load {kind}, ptr %{name}_at"


# Members are dealt to the jobs by the number that there really are: inside another parallel region, or at a limit, the
# runtime gives fewer than it was asked for.
_SHARE = f"""
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define internal void @share(ptr %data, i64 %me, i64 %members) {{
begin:
  {_word("jobs", JOBS)}
  %enough = icmp sge i64 %members, %jobs
  br i1 %enough, label %teams, label %queue

teams:                                                  ; every job has a team, the first ones with one member more
  %size = udiv i64 %members, %jobs
  %more = urem i64 %members, %jobs
  %larger = add i64 %size, 1
  %edge = mul i64 %more, %larger
  %early = icmp ult i64 %me, %edge
  %past = sub i64 %me, %edge
  %from = select i1 %early, i64 %me, i64 %past
  %team = select i1 %early, i64 %larger, i64 %size
  %first = select i1 %early, i64 0, i64 %more
  %nth = udiv i64 %from, %team
  %member = urem i64 %from, %team
  %mine = add i64 %first, %nth
  call void @one(ptr %data, i64 %mine, i64 %member, i64 %team)
  ret void

queue:                                                  ; a member does several jobs in turn, each of them alone
  %job = phi i64 [ %me, %begin ], [ %next, %work ]
  %open = icmp slt i64 %job, %jobs
  br i1 %open, label %work, label %end

work:
  call void @one(ptr %data, i64 %job, i64 0, i64 1)
  %next = add i64 %job, %members
  br label %queue

end:
  ret void
}}

define internal void @one(ptr %data, i64 %job, i64 %member, i64 %members) {{
  {_word("barriers", BARRIERS, "ptr")}
  %line = shl i64 %job, 7
  %barrier = getelementptr i8, ptr %barriers, i64 %line
  %twice = shl i64 %job, 1
  %place = add i64 %twice, {LIST}
  %kernel_at = getelementptr i64, ptr %data, i64 %place
  %kernel = load ptr, ptr %kernel_at
  %args_at = getelementptr i64, ptr %kernel_at, i64 1
  %args = load ptr, ptr %args_at
  call void %kernel(ptr %args, i64 %member, i64 %members, ptr %barrier)
  ret void
}}

define internal void @clean(ptr %data) {{
  {_word("barriers", BARRIERS, "ptr")}
  {_word("jobs", JOBS)}
  %bytes = shl i64 %jobs, 7
  call void @llvm.memset.p0.i64(ptr %barriers, i8 0, i64 %bytes, i1 false)
  ret void
}}

define void @alone(ptr %kernel, ptr %args) {{
  %barrier = alloca <16 x i64>, align 128
  store <16 x i64> zeroinitializer, ptr %barrier
  call void %kernel(ptr %args, i64 0, i64 1, ptr %barrier)
  ret void
}}
"""

# GNU's runtime, whose entry LLVM's has as well on Linux; and LLVM's own entry.
_OPENMP = f"""
@place = internal constant [17 x i8] c";carousel;;0;0;;\\00"
@ident = internal global {{ i32, i32, i32, i32, ptr }} {{ i32 0, i32 2, i32 0, i32 0, ptr @place }}

define internal void @member(ptr %data) {{
  {_word("number", NUMBER, "ptr")}
  {_word("count", COUNT, "ptr")}
  %me = call i32 %number()
  %members = call i32 %count()
  %me64 = sext i32 %me to i64
  %members64 = sext i32 %members to i64
  call void @share(ptr %data, i64 %me64, i64 %members64)
  ret void
}}

define internal void @microtask(ptr %global, ptr %bound, ptr %data) {{
  call void @member(ptr %data)
  ret void
}}

define void @gomp(ptr %data) {{
  {_word("fork", FORK, "ptr")}
  {_word("threads", THREADS)}
  %asked = trunc i64 %threads to i32
  call void @clean(ptr %data)
  call void %fork(ptr @member, ptr %data, i32 %asked, i32 0)
  ret void
}}

define void @kmp(ptr %data) {{
  {_word("fork", FORK, "ptr")}
  {_word("identity", IDENTITY, "ptr")}
  {_word("push", PUSH, "ptr")}
  {_word("threads", THREADS)}
  %asked = trunc i64 %threads to i32
  call void @clean(ptr %data)
  %id = call i32 %identity(ptr @ident)
  call void %push(ptr @ident, i32 %id, i32 %asked)
  call void (ptr, i32, ptr, ...) %fork(ptr @ident, i32 1, ptr @microtask, ptr %data)
  ret void
}}
"""

# Threads of our own are made for one dispatch and end with it: there is no pool that a fork, a signal or a second caller
# could find in a bad state. A thread begins when it is known how many the system has given.
_OWN = f"""
define void @own(ptr %data) {{
begin:
  {_word("threads", THREADS)}
  %started_at = getelementptr i64, ptr %data, i64 {STARTED}
  store atomic i64 0, ptr %started_at monotonic, align 8
  call void @clean(ptr %data)
  %handles = alloca i64, i64 %threads
  %seats = alloca {{ ptr, i64 }}, i64 %threads
  br label %start

start:
  %count = phi i64 [ 1, %begin ], [ %next, %started ]
  %more = icmp slt i64 %count, %threads
  br i1 %more, label %try, label %go

try:
  %seat = getelementptr {{ ptr, i64 }}, ptr %seats, i64 %count
  store ptr %data, ptr %seat
  %seat_number = getelementptr i64, ptr %seat, i64 1
  store i64 %count, ptr %seat_number
  %handle = getelementptr i64, ptr %handles, i64 %count
  %fine = call i1 @start(ptr %handle, ptr %seat)
  br i1 %fine, label %started, label %go

started:
  %next = add i64 %count, 1
  br label %start

go:
  store atomic i64 %count, ptr %started_at release, align 8
  call void @share(ptr %data, i64 0, i64 %count)
  br label %join

join:
  %nth = phi i64 [ 1, %go ], [ %after, %joined ]
  %running = icmp slt i64 %nth, %count
  br i1 %running, label %joined, label %end

joined:
  %old_at = getelementptr i64, ptr %handles, i64 %nth
  %old = load i64, ptr %old_at
  call void @finish(i64 %old)
  %after = add i64 %nth, 1
  br label %join

end:
  ret void
}}

define internal ptr @thread(ptr %seat) {{
begin:
  %data = load ptr, ptr %seat
  %me_at = getelementptr i64, ptr %seat, i64 1
  %me = load i64, ptr %me_at
  %started_at = getelementptr i64, ptr %data, i64 {STARTED}
  br label %look

look:
  %members = load atomic i64, ptr %started_at acquire, align 8
  %early = icmp eq i64 %members, 0
  br i1 %early, label %wait, label %go

wait:
  %rested = call i32 @REST()
  br label %look

go:
  call void @share(ptr %data, i64 %me, i64 %members)
  ret ptr null
}}
"""

_POSIX = """
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i32 @sched_yield()

define internal i1 @start(ptr %handle, ptr %seat) {
  %error = call i32 @pthread_create(ptr %handle, ptr null, ptr @thread, ptr %seat)
  %fine = icmp eq i32 %error, 0
  ret i1 %fine
}

define internal void @finish(i64 %handle) {
  %error = call i32 @pthread_join(i64 %handle, ptr null)
  ret void
}
"""

_WINDOWS = """
declare i64 @CreateThread(ptr, i64, ptr, ptr, i32, ptr)
declare i32 @WaitForSingleObject(i64, i32)
declare i32 @CloseHandle(i64)
declare i32 @SwitchToThread()

define internal i1 @start(ptr %handle, ptr %seat) {
  %made = call i64 @CreateThread(ptr null, i64 0, ptr @thread, ptr %seat, i32 0, ptr null)
  store i64 %made, ptr %handle
  %fine = icmp ne i64 %made, 0
  ret i1 %fine
}

define internal void @finish(i64 %handle) {
  %done = call i32 @WaitForSingleObject(i64 %handle, i32 -1)
  %closed = call i32 @CloseHandle(i64 %handle)
  ret void
}
"""


def source(cpu: Target) -> str:
    """The launcher's module, in LLVM's language.

    Its functions are `alone` (kernel, args), and `gomp`, `kmp` and `own` (words): see the words' names above.
    """
    windows = "windows" in cpu.triple
    own = _OWN.replace("@REST", "@SwitchToThread" if windows else "@sched_yield")
    return _SHARE + _OPENMP + own + (_WINDOWS if windows else _POSIX)
