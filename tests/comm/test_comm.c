/* Communicators: sums, agreement, lost ranks, the choice of a kind, and the witness of a sudden end. */
#include "fake_comm.h"

#include "comm/comm_device.h"
#include "test_support.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const double calm = 20, short_time = 1; /* seconds without progress */

static void expect_well(const fake_job *job) {
    if (job->status != SAP_OK)
        fail_msg("rank %d: %s", job->rank, job->error.message);
}

static void sleep_for(double seconds) {
    (void)nanosleep(&(struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)}, NULL);
}

/* ---- What ranks do together ------------------------------------------------------------------------------------- */

typedef struct sums {
    float f[FAKE_RANKS][3];
    double d[FAKE_RANKS];
    int64_t i[FAKE_RANKS];
    char text[FAKE_RANKS][8];
} sums;

static void add(fake_job *job) {
    sums *s = job->context;
    int r = job->rank;
    for (int round = 0; round < 50 && job->status == SAP_OK; round++) {
        for (int k = 0; k < 3; k++)
            s->f[r][k] = (float)(k + r);
        s->d[r] = 0.5 * r;
        s->i[r] = INT64_C(1) << (r + 40);
        (void)snprintf(s->text[r], sizeof s->text[r], "rank %d", r);
        job->status = sap_comm_sum(job->comm, SAP_COMM_FLOAT, s->f[r], 3, &job->error);
        if (job->status == SAP_OK)
            job->status = sap_comm_sum(job->comm, SAP_COMM_DOUBLE, &s->d[r], 1, &job->error);
        if (job->status == SAP_OK)
            job->status = sap_comm_sum(job->comm, SAP_COMM_INT64, &s->i[r], 1, &job->error);
        if (job->status == SAP_OK)
            job->status = sap_comm_broadcast(job->comm, s->text[r], sizeof s->text[r], &job->error);
    }
}

static void sums_and_broadcasts(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 5};
    for (size_t n = 0; n < 3; n++) {
        sums s = {0};
        fake_job jobs[FAKE_RANKS];
        int size = sizes[n];
        fake_run(size, calm, add, &s, jobs);
        for (int r = 0; r < size; r++) {
            expect_well(&jobs[r]);
            for (int k = 0; k < 3; k++)
                assert_true(s.f[r][k] == (float)(size * k + size * (size - 1) / 2));
            assert_true(s.d[r] == 0.25 * size * (size - 1));
            assert_int_equal(s.i[r], ((INT64_C(1) << size) - 1) << 40);
            assert_string_equal(s.text[r], "rank 0");
        }
    }
}

static void agree(fake_job *job) {
    const int *failing = job->context;
    job->status = sap_comm_agree(job->comm, SAP_OK, &job->error);
    sap_status own = SAP_OK;
    if (job->status == SAP_OK && (*failing >> job->rank & 1))
        own = sap_error_set(&job->error, SAP_EIO, "the disk of %d is full", job->rank);
    if (job->status == SAP_OK)
        job->status = sap_comm_agree(job->comm, own, &job->error);
}

static void the_lowest_failing_rank_speaks(void **state) {
    (void)state;
    int failing = 0;
    fake_job jobs[FAKE_RANKS];
    fake_run(4, calm, agree, &failing, jobs);
    for (int r = 0; r < 4; r++)
        expect_well(&jobs[r]);
    failing = 1 << 1 | 1 << 3;
    fake_run(4, calm, agree, &failing, jobs);
    for (int r = 0; r < 4; r++) {
        assert_int_equal(jobs[r].status, r == 1 ? SAP_EIO : SAP_EPEER);
        assert_true(strncmp(jobs[r].error.message, "rank 1 on ", 10) == 0);
        assert_non_null(strstr(jobs[r].error.message, ": the disk of 1 is full"));
    }
}

static void alone(void **state) {
    (void)state;
    double number = 3;
    assert_ok(sap_comm_sum(NULL, SAP_COMM_DOUBLE, &number, 1, err));
    assert_ok(sap_comm_broadcast(NULL, &number, sizeof number, err));
    assert_true(number == 3);
    assert_error(SAP_EDATA, "mine", sap_comm_agree(NULL, sap_error_set(err, SAP_EDATA, "mine"), err));
    assert_int_equal(sap_comm_size(NULL), 1);
    assert_int_equal(sap_comm_rank(NULL), 0);
    assert_string_equal(sap_comm_kind(NULL), "none");
    sap_comm_note(NULL, 1, 1);
    sap_comm_close(NULL, true);
}

/* ---- Ranks that are lost ------------------------------------------------------------------------------------------- */

typedef enum loss { CUT, HANG, BUSY } loss;

static void lose_rank_1(fake_job *job) {
    loss how = *(const loss *)job->context;
    int64_t one = 1;
    job->status = sap_comm_sum(job->comm, SAP_COMM_INT64, &one, 1, &job->error);
    if (job->rank == 1 && how == CUT)
        fake_cut(job);
    if (job->rank == 1 && how == HANG)
        sleep_for(4 * short_time); /* alive, but doing nothing: the others have given up by then */
    for (int i = 0; job->rank == 1 && how == BUSY && i < 20; i++) {
        sleep_for(short_time / 5);
        sap_comm_note(job->comm, 1, i);
    }
    if (job->rank == 1 && how == HANG)
        fake_hang(job);
    if (job->status == SAP_OK)
        job->status = sap_comm_sum(job->comm, SAP_COMM_INT64, &one, 1, &job->error);
}

static void lost_ranks_are_named(void **state) {
    (void)state;
    static const char *const said[] = {"nothing was heard of it for 1 seconds",
                                       "it has made no progress for 1 seconds"};
    for (loss how = CUT; how <= HANG; how++) {
        fake_job jobs[FAKE_RANKS];
        double begun = sap_seconds();
        fake_run(3, short_time, lose_rank_1, &how, jobs);
        assert_true(sap_seconds() - begun < 20 * short_time);
        assert_int_equal(jobs[2].status, SAP_EIO); /* it watches rank 1 */
        assert_true(strncmp(jobs[2].error.message, "rank 1 on ", 10) == 0);
        assert_non_null(strstr(jobs[2].error.message, said[how]));
        for (int r = 0; r < 2; r++) /* each misses the one before, since that has ended */
            assert_int_equal(jobs[r].status, SAP_EIO);
    }
}

static void a_busy_rank_is_waited_for(void **state) {
    (void)state;
    loss how = BUSY;
    fake_job jobs[FAKE_RANKS];
    fake_run(3, short_time, lose_rank_1, &how, jobs);
    for (int r = 0; r < 3; r++)
        expect_well(&jobs[r]);
}

/* ---- On devices -------------------------------------------------------------------------------------------------- */

static void add_on_devices(fake_job *job) {
    float numbers[3] = {1, (float)job->rank, 0.5F};
    job->status = sap_comm_device_open(job->comm, &job->error);
    for (int round = 0; round < 20 && job->status == SAP_OK; round++) {
        numbers[0] = 1;
        numbers[1] = (float)job->rank;
        job->status = sap_comm_device_sum(job->comm, numbers, 3, NULL, &job->error);
        if (numbers[0] != 3 || numbers[1] != 3)
            job->status = sap_error_set(&job->error, SAP_EDATA, "%g and %g", (double)numbers[0], (double)numbers[1]);
    }
    if (job->status == SAP_OK)
        sap_comm_device_close(job->comm);
    if (job->status == SAP_OK && fake_given_up(job) != 0)
        job->status = sap_error_set(&job->error, SAP_EDATA, "it was given up");
}

static void sums_on_devices(void **state) {
    (void)state;
    fake_job jobs[FAKE_RANKS];
    fake_run(3, calm, add_on_devices, NULL, jobs);
    for (int r = 0; r < 3; r++)
        expect_well(&jobs[r]);
}

/* Rank 1 is cut off while the devices of the others wait for it: the watchdog ends what they wait for. */
static void lose_a_device(fake_job *job) {
    float number = 1;
    job->status = sap_comm_device_open(job->comm, &job->error);
    if (job->rank == 1)
        fake_cut(job);
    if (job->status == SAP_OK && job->rank != 1)
        job->status = sap_comm_device_sum(job->comm, &number, 1, fake_nowhere, &job->error);
    while (job->status == SAP_OK)
        job->status = sap_comm_device_look(job->comm, true, &job->error);
    if (job->rank == 2)
        *(int *)job->context = fake_given_up(job);
}

static void a_device_does_not_wait_for_a_lost_rank(void **state) {
    (void)state;
    int given_up = 0;
    fake_job jobs[FAKE_RANKS];
    fake_run(3, short_time, lose_a_device, &given_up, jobs);
    for (int r = 0; r < 3; r++)
        assert_int_equal(jobs[r].status, SAP_EIO);
    assert_true(strncmp(jobs[2].error.message, "rank 1 on ", 10) == 0);
    assert_true(given_up >= 1); /* its own */
}

/* ---- Which kind ------------------------------------------------------------------------------------------------------ */

static void the_environment_chooses(void **state) {
    (void)state;
    static const char *const names[] = {
        "SAPWOOD_COMM",    "OMPI_COMM_WORLD_SIZE", "PMI_RANK",       "PMIX_RANK", "MPI_LOCALNRANKS",
        "HYDI_CONTROL_FD", "SLURM_STEP_NUM_TASKS", "SAPWOOD_TIMEOUT"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        (void)unsetenv(names[i]);
    sap_comm *comm = (sap_comm *)&comm;
    assert_ok(sap_comm_open(NULL, &comm, err));
    assert_null(comm); /* and no MPI was loaded */
    (void)setenv("SLURM_STEP_NUM_TASKS", "1", 1);
    assert_ok(sap_comm_open(NULL, &comm, err));
    (void)setenv("SLURM_STEP_NUM_TASKS", "2", 1);
    assert_error(SAP_EARGUMENT, "set SAPWOOD_COMM to mpich or openmpi", sap_comm_open(NULL, &comm, err));
    (void)setenv("SAPWOOD_COMM", "none", 1);
    assert_ok(sap_comm_open(NULL, &comm, err));
    assert_null(comm);
    (void)setenv("SAPWOOD_COMM", "pvm", 1);
    assert_error(SAP_EARGUMENT, "no communication \"pvm\"", sap_comm_open(NULL, &comm, err));
    assert_error(SAP_EARGUMENT, "no communication \"p4\"",
                 sap_comm_open(&(sap_comm_options){.kind = "p4"}, &comm, err));
    (void)setenv("SAPWOOD_TIMEOUT", "soon", 1);
    assert_error(SAP_EARGUMENT, "SAPWOOD_TIMEOUT: \"soon\"", sap_comm_open(NULL, &comm, err));
    (void)unsetenv("SAPWOOD_TIMEOUT");
    (void)unsetenv("SAPWOOD_COMM");
    (void)unsetenv("SLURM_STEP_NUM_TASKS");
    (void)setenv("PMIX_RANK", "0", 1);
    assert_error(SAP_EARGUMENT, "does not say which MPI", sap_comm_open(NULL, &comm, err));
    (void)unsetenv("PMIX_RANK");
}

/* ---- The witness ------------------------------------------------------------------------------------------------------- */

typedef enum ending { KILLED, STOPPED, AFTER_ANOTHER } ending;

/* What a witness writes when a process with one ends so. */
static void testify(ending how, char *out, size_t capacity) {
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t gone = fork(), rank;
    if (gone == 0)
        _exit(0);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)gone, &info, WEXITED | WNOWAIT), 0); /* ended, but not looked after */
    rank = fork();
    if (rank == 0) {
        pid_t neighbour = how == AFTER_ANOTHER ? gone : getppid();
        (void)dup2(ends[1], STDERR_FILENO);
        sap_witness *witness = sap_witness_start();
        sap_witness_tell(witness, "rank 3 on node7", &neighbour, 1);
        sap_witness_note(witness, 2, 17);
        if (how == STOPPED)
            sap_witness_stop(witness);
        (void)raise(SIGKILL);
    }
    (void)close(ends[1]);
    (void)waitpid(rank, NULL, 0);
    size_t length = 0;
    for (ssize_t got; (got = read(ends[0], out + length, capacity - 1 - length)) > 0;)
        length += (size_t)got; /* to the end: the witness has ended, too */
    out[length] = '\0';
    (void)close(ends[0]);
    (void)waitpid(gone, NULL, 0);
}

static void a_witness_tells_of_the_first_sudden_end(void **state) {
    (void)state;
    char said[500];
    testify(KILLED, said, sizeof said);
    assert_true(strncmp(said, "sapwood: rank 3 on node7 (process ", 34) == 0);
    assert_non_null(strstr(said, ") ended without a word in epoch 2, after step 17: it was killed, or crashed\n"));
    testify(STOPPED, said, sizeof said);
    assert_string_equal(said, "");
    testify(AFTER_ANOTHER, said, sizeof said);
    assert_string_equal(said, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_and_broadcasts),
        cmocka_unit_test(the_lowest_failing_rank_speaks),
        cmocka_unit_test(alone),
        cmocka_unit_test(lost_ranks_are_named),
        cmocka_unit_test(a_busy_rank_is_waited_for),
        cmocka_unit_test(sums_on_devices),
        cmocka_unit_test(a_device_does_not_wait_for_a_lost_rank),
        cmocka_unit_test(the_environment_chooses),
        cmocka_unit_test(a_witness_tells_of_the_first_sudden_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
