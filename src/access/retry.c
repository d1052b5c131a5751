/* Doing again what a server did not do: pauses that grow, an end, and a look at the cancel flag. */
#include "access_internal.h"

static const double FIRST_PAUSE_SECONDS = 0.1, LONGEST_PAUSE_SECONDS = 5, LONGEST_SLEEP_SECONDS = 0.1;

double sap_retry_pause(int tries, const void *salt) {
    double pause = FIRST_PAUSE_SECONDS;
    for (int i = 1; i < tries && pause < LONGEST_PAUSE_SECONDS; i++)
        pause *= 2;
    pause = pause < LONGEST_PAUSE_SECONDS ? pause : LONGEST_PAUSE_SECONDS;
    return pause * (0.5 + sap_unit(sap_mix((uint64_t)(uintptr_t)salt, (uint64_t)sap_nanoseconds())));
}

static sap_status sleep_for(double seconds, const sap_run *run, sap_error *err) {
    for (double until = sap_seconds() + seconds, left = seconds; left > 0; left = until - sap_seconds()) {
        SAP_TRY(sap_run_check(run, err));
        double nap = left < LONGEST_SLEEP_SECONDS ? left : LONGEST_SLEEP_SECONDS;
        (void)nanosleep(&(struct timespec){0, (long)(nap * 1e9)}, NULL);
    }
    return sap_run_check(run, err);
}

sap_status sap_retry(const sap_access_settings *settings, const sap_run *run, sap_retry_step step, void *context,
                     int *tries, sap_error *err) {
    sap_error error = {0};
    sap_access_settings left = *settings;
    double begin = sap_seconds();
    int unused;
    tries = tries ? tries : &unused;
    SAP_TRY(sap_run_check(run, err));
    for (*tries = 1;; ++*tries) {
        sap_status status = step(context, &left, &error);
        if (status == SAP_OK)
            return SAP_OK;
        double pause = sap_retry_pause(*tries, context), spent = sap_seconds() - begin;
        left.connect_seconds = settings->connect_seconds - spent - pause;
        if (status != SAP_EIO)
            return sap_error_set(err, status, "%s", error.message);
        if (left.connect_seconds <= 0)
            return sap_error_set(err, status, "%s; tried %d times in %.1f s", error.message, *tries, spent);
        SAP_TRY(sleep_for(pause, run, err));
    }
}
