/*
 * A host in C: loads the library, lists its nodes, learns a word in a few steps, stops a run half-way, and shows what errors look like.
 *
 *     cargo build --release
 *     cc examples/c_host/main.c -I plugin/include -o target/c_host -ldl   (Windows: cl examples\c_host\main.c /I plugin\include)
 *     target/c_host target/release/libvocable_plugin.so                   (macOS: .dylib; Windows: vocable_plugin.dll)
 *
 * All arguments: LIBRARY [MODEL [CONCEPT [OUTPUT [STEPS]]]]. MODEL and CONCEPT are folders (of a model, of pictures); OUTPUT is where
 * results go; with 0 STEPS nothing is learned and no model is loaded. Without them it learns `mibbet` with the model that ships, in the repository's root.
 *
 * It is C99 and needs nothing but the header. A host that is linked with the library can leave out the first part.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vocable.h"

/* ---- The library's functions, by name ---------------------------------------------------------------------------- */

#ifdef _WIN32
#include <windows.h>
typedef HMODULE library;
static library open_library(const char *path) { return LoadLibraryA(path); }
static void find(library from, const char *name, void *place) {
    FARPROC found = GetProcAddress(from, name);
    memcpy(place, &found, sizeof found);
}
#else
#include <dlfcn.h>
typedef void *library;
static library open_library(const char *path) { return dlopen(path, RTLD_NOW | RTLD_LOCAL); }
static void find(library from, const char *name, void *place) {
    void *found = dlsym(from, name); /* POSIX lets this be a function; ISO C has no cast for it. */
    memcpy(place, &found, sizeof found);
}
#endif

#define FUNCTIONS(X)                                                                                                   \
    X(uint32_t, abi_version, (void))                                                                                   \
    X(vocable_error *, info_json, (char **))                                                                           \
    X(vocable_error *, nodes_json, (char **))                                                                          \
    X(void, string_free, (char *))                                                                                     \
    X(uint32_t, error_code, (const vocable_error *))                                                                   \
    X(const char *, error_message, (const vocable_error *))                                                            \
    X(const char *, error_help, (const vocable_error *))                                                               \
    X(const char *, error_causes, (const vocable_error *))                                                             \
    X(void, error_free, (vocable_error *))                                                                             \
    X(vocable_error *, value_from_json, (const char *, vocable_value **))                                              \
    X(vocable_error *, value_to_json, (const vocable_value *, char **))                                                \
    X(vocable_error *, value_from_tensor, (const vocable_tensor *, uint64_t, void (*)(void *), void *, vocable_value **)) \
    X(vocable_error *, value_tensor, (const vocable_value *, vocable_tensor *))                                        \
    X(vocable_error *, map_set, (vocable_value *, const char *, const vocable_value *))                                \
    X(size_t, value_count, (const vocable_value *))                                                                    \
    X(vocable_error *, value_at, (const vocable_value *, size_t, vocable_value **))                                    \
    X(void, value_free, (vocable_value *))                                                                             \
    X(vocable_error *, node_validate, (const char *, const vocable_value *, const char *))                             \
    X(vocable_error *, job_start, (const char *, const vocable_value *, const char *, vocable_job **))                 \
    X(vocable_error *, job_poll, (vocable_job *, uint32_t, vocable_event **))                                          \
    X(uint32_t, event_get_kind, (const vocable_event *))                                                               \
    X(uint64_t, event_step, (const vocable_event *))                                                                   \
    X(uint64_t, event_total, (const vocable_event *))                                                                  \
    X(const char *, event_text, (const vocable_event *))                                                               \
    X(uint32_t, event_level, (const vocable_event *))                                                                  \
    X(const uint8_t *, event_picture, (const vocable_event *, uint32_t *, uint32_t *))                                 \
    X(void, event_free, (vocable_event *))                                                                             \
    X(void, job_cancel, (vocable_job *))                                                                               \
    X(vocable_error *, job_take_outputs, (vocable_job *, vocable_value **, char **))                                   \
    X(void, job_free, (vocable_job *))

#define MEMBER(result, name, parameters) result (*name) parameters;
static struct { FUNCTIONS(MEMBER) } vocable; /* vocable.job_start is vocable_job_start */

static void load(const char *path) {
    library from = open_library(path);
    if (from == NULL) {
        fprintf(stderr, "%s cannot be opened\n", path);
        exit(1);
    }
#define FIND(result, name, parameters)                                                                                 \
    find(from, "vocable_" #name, &vocable.name);                                                                       \
    if (vocable.name == NULL) {                                                                                        \
        fprintf(stderr, "vocable_" #name " is missing: the library is too old\n");                                     \
        exit(1);                                                                                                       \
    }
    FUNCTIONS(FIND)
    if (vocable.abi_version() < VOCABLE_ABI_VERSION) {
        fprintf(stderr, "the library is too old\n");
        exit(1);
    }
}

/* ---- Small helpers ------------------------------------------------------------------------------------------------ */

/* Prints an error as a user should see it, and frees it. */
static void show(vocable_error *error) {
    printf("  error %u: %s\n", (unsigned)vocable.error_code(error), vocable.error_message(error));
    if (*vocable.error_causes(error)) printf("    because: %s\n", vocable.error_causes(error));
    if (*vocable.error_help(error)) printf("    help: %s\n", vocable.error_help(error));
    vocable.error_free(error);
}

/* For calls that must go well here. */
static void check(vocable_error *error) {
    if (error != NULL) {
        show(error);
        exit(1);
    }
}

/* For calls that must fail here. */
static void expect(uint32_t code, vocable_error *error) {
    uint32_t found = vocable.error_code(error);
    show(error);
    if (found != code) {
        fprintf(stderr, "expected error %u\n", (unsigned)code);
        exit(1);
    }
}

/* Text made as by printf; the caller frees it. */
static char *format(const char *pattern, ...) {
    va_list arguments;
    va_start(arguments, pattern);
    int length = vsnprintf(NULL, 0, pattern, arguments);
    va_end(arguments);
    char *text = malloc((size_t)length + 1);
    if (length < 0 || text == NULL) exit(1);
    va_start(arguments, pattern);
    vsnprintf(text, (size_t)length + 1, pattern, arguments);
    va_end(arguments);
    return text;
}

/* Text as JSON writes it, with its quotes; the caller frees it. */
static char *quoted(const char *text) {
    char *json = malloc(6 * strlen(text) + 3), *at = json;
    if (json == NULL) exit(1);
    *at++ = '"';
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20) {
            at += sprintf(at, "\\u%04x", (unsigned)*text);
        } else {
            if (*text == '"' || *text == '\\') *at++ = '\\';
            *at++ = *text;
        }
    }
    strcpy(at, "\"");
    return json;
}

static vocable_value *value_of(const char *json) {
    vocable_value *value;
    check(vocable.value_from_json(json, &value));
    return value;
}

/* Links item `slot` of a node's outputs to an input: what a graph's edge does. */
static void link_to(vocable_value *inputs, const char *name, const vocable_value *outputs, size_t slot) {
    vocable_value *value;
    check(vocable.value_at(outputs, slot, &value));
    check(vocable.map_set(inputs, name, value));
    vocable.value_free(value);
}

/* Writes a picture that is looked at while the job goes on. */
static void keep_picture(const vocable_event *event, const char *output) {
    uint32_t width, height;
    const uint8_t *rgb = vocable.event_picture(event, &width, &height);
    if (rgb == NULL) return;
    char *path = format("%s/preview.ppm", output);
    FILE *file = fopen(path, "wb");
    if (file != NULL) {
        fprintf(file, "P6 %u %u 255\n", (unsigned)width, (unsigned)height);
        fwrite(rgb, 3, (size_t)width * height, file);
        fclose(file);
        printf("  a picture of %ux%u\n", (unsigned)width, (unsigned)height);
    }
    free(path);
}

/* ---- Running nodes ------------------------------------------------------------------------------------------------ */

static char *host_json;        /* what nodes may ask of us: the folders */
static const char *output_dir; /* where pictures go */

/* Runs a node to its end, or asks it to stop after step `stop_after` of its work, if that is not 0. Frees the inputs; the caller frees the outputs. */
static vocable_error *run(const char *node, vocable_value *inputs, uint64_t stop_after, vocable_value **outputs) {
    vocable_job *job;
    vocable_error *error = vocable.job_start(node, inputs, host_json, &job);
    vocable.value_free(inputs); /* the job shares what it needs */
    if (error != NULL) return error;
    printf("%s\n", node);
    for (uint32_t kind = 0; kind != VOCABLE_EVENT_DONE;) {
        vocable_event *event;
        check(vocable.job_poll(job, 100, &event)); /* a window's host would poll with 0 from its timer */
        if (event == NULL) continue;
        kind = vocable.event_get_kind(event);
        if (kind == VOCABLE_EVENT_PROGRESS) {
            uint64_t step = vocable.event_step(event);
            printf("  %lu of %lu\n", (unsigned long)step, (unsigned long)vocable.event_total(event));
            keep_picture(event, output_dir);
            if (stop_after != 0 && step >= stop_after && vocable.event_total(event) > 100) vocable.job_cancel(job);
        } else if (kind == VOCABLE_EVENT_STATUS) {
            printf("  %s\n", vocable.event_text(event));
        } else if (kind == VOCABLE_EVENT_LOG && vocable.event_level(event) >= 2) {
            printf("  log: %s\n", vocable.event_text(event));
        }
        vocable.event_free(event);
    }
    char *ui = NULL;
    error = vocable.job_take_outputs(job, outputs, &ui);
    if (ui != NULL) printf("  shows %s\n", ui);
    vocable.string_free(ui);
    vocable.job_free(job);
    return error;
}

static vocable_value *must_run(const char *node, vocable_value *inputs) {
    vocable_value *outputs;
    check(run(node, inputs, 0, &outputs));
    char *json;
    check(vocable.value_to_json(outputs, &json));
    printf("  gives %s\n", json);
    vocable.string_free(json);
    return outputs;
}

/* Learns a word: checkpoint and concept → trainer → file. */
static void learn(const char *model, const char *pictures, unsigned long steps) {
    char *json = format("{\"ckpt_name\": %s}", model);
    vocable_value *checkpoint = must_run("CheckpointLoaderSimple", value_of(json));
    free(json);
    json = format("{\"folder\": %s, \"resolution\": 64}", pictures);
    vocable_value *concept = must_run("VocableLoadConceptImages", value_of(json));
    free(json);

    vocable_value *trained = NULL;
    for (int stopped = 1; stopped >= 0; stopped--) { /* once to be stopped, once to the end */
        json = format("{\"placeholder\": \"<from-c>\", \"init_words\": \"cat\", \"vectors\": 1, \"preset\": \"recommended\", \"batch_size\": 1,"
                      "\"seed\": 18446744073709551615, \"steps\": %lu, \"preview_count\": 1, \"preview_steps\": 2}",
                      stopped ? 100000UL : steps);
        vocable_value *inputs = value_of(json);
        free(json);
        link_to(inputs, "model", checkpoint, 0);
        link_to(inputs, "clip", checkpoint, 1);
        link_to(inputs, "vae", checkpoint, 2);
        link_to(inputs, "concept", concept, 0);
        if (stopped) {
            expect(VOCABLE_CANCELLED, run("VocableTrainTextualInversion", inputs, 2, &trained));
        } else {
            trained = must_run("VocableTrainTextualInversion", inputs);
        }
    }
    vocable_value *inputs = value_of("{\"filename\": \"from_c\", \"if_exists\": \"overwrite\"}");
    link_to(inputs, "embedding", trained, 0);
    vocable.value_free(must_run("VocableSaveEmbedding", inputs));

    /* What a tensor looks like from here: the preview pictures, [count, height, width, 3] of numbers from 0 to 1. */
    vocable_value *previews;
    vocable_tensor tensor;
    check(vocable.value_at(trained, 2, &previews));
    check(vocable.value_tensor(previews, &tensor));
    const float *first = (const float *)((const char *)tensor.data + tensor.byte_offset);
    printf("previews: %ld pictures of %ldx%ld, the first begins with %.3f\n", (long)tensor.shape[0], (long)tensor.shape[2],
           (long)tensor.shape[1], (double)first[0]);
    vocable.value_free(previews);
    vocable.value_free(trained);
    vocable.value_free(concept);
    vocable.value_free(checkpoint);
}

static void count_release(void *context) { ++*(int *)context; }

/* Lends two pictures of 32x40 pixels, each of a grey of its own, and loads them as a concept. The library tells when it needs them no more. */
static void lend_pictures(void) {
    enum { COUNT = 2, HEIGHT = 32, WIDTH = 40 };
    static float pixels[COUNT * HEIGHT * WIDTH];
    for (int i = 0; i < COUNT * HEIGHT * WIDTH; i++) pixels[i] = i < HEIGHT * WIDTH ? 0.25f : 0.75f;
    /* The three colours are the same numbers: a stride of 0 reads each three times. */
    const int64_t shape[4] = {COUNT, HEIGHT, WIDTH, 3}, strides[4] = {HEIGHT * WIDTH, WIDTH, 1, 0};
    vocable_tensor tensor = {pixels, 1, 0, 4, {2, 32, 1}, shape, strides, 0};
    int released = 0;
    vocable_value *value, *inputs = value_of("{\"resolution\": 32}");
    check(vocable.value_from_tensor(&tensor, sizeof pixels, count_release, &released, &value));
    check(vocable.map_set(inputs, "images", value));
    vocable.value_free(value);
    vocable.value_free(must_run("VocableLoadConceptImages", inputs));
    printf("released %d time%s\n", released, released == 1 ? "" : "s");
    if (released != 1) exit(1);
}

static void errors(void) {
    printf("what goes wrong is told\n");
    vocable_value *value = NULL, *outputs = NULL;
    expect(VOCABLE_INVALID_INPUT, vocable.value_from_json("{\"steps\": ", &value));
    expect(VOCABLE_INVALID_INPUT, vocable.value_to_json(NULL, NULL));
    expect(VOCABLE_NOT_FOUND, run("VocableTrainTextualInversio", value_of("{}"), 0, &outputs));
    value = value_of("{\"steps\": 1000000, \"preset\": \"my own\"}");
    expect(VOCABLE_INVALID_INPUT, vocable.node_validate("VocableTrainTextualInversion", value, host_json));
    vocable.value_free(value);
    expect(VOCABLE_INVALID_INPUT, run("VocableInspectCheckpoint", value_of("{\"ckpt_name\": \"nowhere\"}"), 0, &outputs));
}

/* The last part of a path; what is before it goes to `folder`, which the caller frees. */
static const char *split(const char *path, char **folder) {
    const char *name = strrchr(path, '/');
#ifdef _WIN32
    const char *back = strrchr(path, '\\');
    if (name == NULL || (back != NULL && back > name)) {
        name = back;
    }
#endif
    *folder = name == NULL ? format(".") : format("%.*s", (int)(name - path), path);
    return name == NULL ? path : name + 1;
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: %s LIBRARY [MODEL [CONCEPT [OUTPUT [STEPS]]]]\n", arguments[0]);
        return 2;
    }
    load(arguments[1]);
    output_dir = count > 4 ? arguments[4] : "output";
    unsigned long steps = count > 5 ? strtoul(arguments[5], NULL, 10) : 5;
    char *models, *inputs;
    char *model = quoted(split(count > 2 ? arguments[2] : "examples/models/creatures", &models));
    char *concept = quoted(split(count > 3 ? arguments[3] : "examples/concepts/mibbet", &inputs));
    char *in = quoted(inputs), *out = quoted(output_dir), *checkpoints = quoted(models);
    host_json = format("{\"folders\": {\"checkpoints\": [%s], \"input\": [%s], \"output\": [%s], \"temp\": [%s], \"embeddings\": [%s]}, \"node_id\": \"1\"}",
                       checkpoints, in, out, out, out);

    char *json;
    check(vocable.info_json(&json));
    printf("%s\n", json);
    vocable.string_free(json);
    check(vocable.nodes_json(&json)); /* a real host reads this with its JSON library */
    size_t nodes = 0;
    for (const char *at = json; (at = strstr(at, "\"display_name\":")) != NULL; at++) nodes++;
    printf("%lu nodes\n", (unsigned long)nodes);
    vocable.string_free(json);

    errors();
    lend_pictures();
    if (steps > 0) learn(model, concept, steps);
    char *all[] = {models, inputs, model, concept, in, out, checkpoints, host_json};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    printf("all is well\n");
    return 0;
}
