/*
 * vocable.h: Vocable's nodes for any program that can call C.
 *
 * The library (libvocable_plugin.so, libvocable_plugin.dylib, vocable_plugin.dll) describes its nodes as JSON and runs
 * them as jobs: start one with its inputs, poll its events, cancel it at any moment, take its outputs.
 * Nothing here calls back into the host except the `release` of a tensor that the host lends.
 *
 *     vocable_nodes_json ──► what there is
 *     vocable_value_*    ──► inputs
 *     vocable_job_start ──► vocable_job_poll … ──► vocable_job_take_outputs ──► vocable_job_free
 *     vocable_import_start: the same, for the weights of a model that the host holds ──► a handle MODEL, CLIP or VAE
 *
 * Rules
 *  - Text is UTF-8 and ends with a zero byte. `const char *` that goes in is read during the call and not kept.
 *  - Every function that can fail returns a `vocable_error *`: NULL if all went well, else an error that the caller frees.
 *    What stands behind `out` is written only when all went well.
 *  - Who owns what: everything that comes out through an `out` argument belongs to the caller, who frees it with the function
 *    of its type. A `const` pointer that comes out is borrowed: it lives as long as the object that it was asked of, and is not changed.
 *  - Every `*_free` takes NULL and does nothing with it. A function that cannot fail answers 0, an empty text or NULL for NULL; every other one
 *    refuses a NULL that it is not said to take, and text that is not UTF-8, with an error that names the argument.
 *  - Every function may be called from any thread, and different objects from several at once. One `vocable_value`,
 *    `vocable_event` or `vocable_error` may be read from several threads at once. `vocable_list_push` and `vocable_map_set`
 *    need the value for themselves. One `vocable_job` may be polled, cancelled and asked for its outputs from several threads at once.
 *    Every `*_free` needs the object for itself: no other call on it may be under way.
 *  - No panic and no exception crosses: a bug in the library is an error of kind VOCABLE_PANICKED, and the library stays usable.
 *  - The library is not unloaded.
 *
 * How this header changes: functions and fields keep their meaning for ever. New functions are added, `vocable_abi_version` then
 * grows; a host that was made for version n runs with every later one. The fields of nodes and events in JSON may
 * become more; a host ignores those that it does not know. Numbers of enumerations are never used twice.
 */
#ifndef VOCABLE_H
#define VOCABLE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VOCABLE_ABI_VERSION 1

/* ---- Library ---------------------------------------------------------------------------------------------------- */

/* The version of this interface that the library has: at least VOCABLE_ABI_VERSION of the header that the host was compiled with,
 * else the library is too old for the host. */
uint32_t vocable_abi_version(void);

/* Who the library is: {"name": "vocable", "version": "0.1.0", "description": …, "homepage": …, "devices": ["cpu", "cuda"]}, of which
 * `devices` is what it was built to compute on. Free with vocable_string_free. */
struct vocable_error *vocable_info_json(char **out);

/* All nodes, a JSON list of
 *   {"id", "display_name", "category", "description",
 *    "inputs":  [{"name", "type", "presence": "required" | "optional" | "hidden", "default", "min", "max", "step", "round",
 *                 "choices": {"fixed": [text…]} | {"files": {"kind", "extensions", "accepts_paths"}},
 *                 "multiline", "dynamic_prompts", "tooltip", "advanced", "control_after_generate", "image_upload", "force_input"}],
 *    "outputs": [{"name", "type", "tooltip", "is_list"}],
 *    "input_is_list", "output_node", "search_aliases", "deprecated", "experimental"}
 * The same at each call. Free with vocable_string_free. */
struct vocable_error *vocable_nodes_json(char **out);

/* Frees text that came out of this library. */
void vocable_string_free(char *text);

/* ---- Errors ----------------------------------------------------------------------------------------------------- */

typedef struct vocable_error vocable_error;

typedef enum vocable_error_kind {
    VOCABLE_INVALID_INPUT = 1, /* an input has a value that the node cannot take; the user can change it */
    VOCABLE_NOT_FOUND = 2,     /* a file, a folder or a name does not exist */
    VOCABLE_INCOMPATIBLE = 3,  /* two things are each fine but do not fit together */
    VOCABLE_OUT_OF_MEMORY = 4, /* memory is short: the host may free what it holds and try once more */
    VOCABLE_CANCELLED = 5,     /* the host asked to stop, and the node did; the help says what was kept */
    VOCABLE_DIVERGED = 6,      /* training left the finite numbers */
    VOCABLE_PANICKED = 7,      /* a bug in the library; the node may be run again */
    VOCABLE_INTERNAL = 8       /* anything else, and any number that this header does not know */
} vocable_error_kind;

/* One of vocable_error_kind. */
uint32_t vocable_error_code(const vocable_error *error);
/* What was found and what was wanted, in lower case without a full stop; names the file or the tensor. */
const char *vocable_error_message(const vocable_error *error);
/* What to do about it, in words for the user; empty when there is nothing to advise. */
const char *vocable_error_help(const vocable_error *error);
/* The errors beneath this one, one on each line, outermost first; empty when there are none. */
const char *vocable_error_causes(const vocable_error *error);
void vocable_error_free(vocable_error *error);

/* ---- Tensors ---------------------------------------------------------------------------------------------------- */

/* DLPack's DLDataType: code 0 signed whole numbers, 1 unsigned ones, 2 floats, 4 bfloat, 6 switches of one byte. Taken are
 * f64, f32, f16, bf16, i64, i32, u32, u8 and bool, one lane each. */
typedef struct vocable_dtype {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
} vocable_dtype;

/* DLPack's DLTensor, field by field. `shape` and `strides` count elements and have `ndim` entries; `strides` may be NULL for row-major order;
 * `byte_offset` counts bytes from `data` to the first element. `device_type` 1 is ordinary memory. */
typedef struct vocable_tensor {
    void *data;
    int32_t device_type;
    int32_t device_id;
    int32_t ndim;
    vocable_dtype dtype;
    const int64_t *shape;
    const int64_t *strides;
    uint64_t byte_offset;
} vocable_tensor;

/* ---- Values ----------------------------------------------------------------------------------------------------- */

/* What travels along a link: nothing, switch, number, text, tensor, list, map, or an object of the library (handle).
 * ComfyUI's types and layouts:
 *   IMAGE tensor [B,H,W,C] f32 0..1 · MASK tensor [B,H,W] f32 · LATENT map {samples: tensor [B,4,h,w]}, unscaled ·
 *   CONDITIONING list [[tensor [1,77k,D], map {pooled_output, …}], …] · LOSS_MAP map {loss: list} ·
 *   TI_EMBEDDING list [map {name, clip_l?: tensor [n,768], clip_g?: …, …}, …] · MODEL, CLIP, VAE, TI_CONCEPT handles */
typedef struct vocable_value vocable_value;

typedef enum vocable_value_kind {
    VOCABLE_NONE = 0,
    VOCABLE_BOOL = 1,
    VOCABLE_INT = 2,
    VOCABLE_FLOAT = 3,
    VOCABLE_STRING = 4,
    VOCABLE_TENSOR = 5,
    VOCABLE_LIST = 6,
    VOCABLE_MAP = 7,
    VOCABLE_HANDLE = 8
} vocable_value_kind;

/* Makes a value of JSON: null, true, 3, 2.5, "text", and lists and objects of these. Whole numbers without fraction become VOCABLE_INT;
 * all of int64 and of uint64 (seeds) keep their value. Any other number becomes VOCABLE_FLOAT. */
vocable_error *vocable_value_from_json(const char *json, vocable_value **out);

/* The value as JSON. Tensors stand as {"tensor": shape, "dtype": "f32"}, handles as {"handle": "MODEL"},
 * numbers that are not finite as null. Free with vocable_string_free. */
vocable_error *vocable_value_to_json(const vocable_value *value, char **out);

/* Lends a tensor to the library: nothing is copied. `byte_length` bytes from `data` on must stay readable and unchanged until
 * `release(context)` is called, once, from any thread, possibly before this function comes back; with `release` NULL they must stay for ever.
 * Where an error comes out, `release` is not called and the memory is the caller's as before. */
vocable_error *vocable_value_from_tensor(const vocable_tensor *tensor, uint64_t byte_length, void (*release)(void *context),
                                         void *context, vocable_value **out);

/* [same] with a copy, row-major: the memory, which must be ordinary, may go when the function comes back. */
vocable_error *vocable_value_from_tensor_copy(const vocable_tensor *tensor, uint64_t byte_length, vocable_value **out);

/* A view of the tensor behind a value: all pointers are borrowed from `value`, the data is only for reading. An error if it is no tensor. */
vocable_error *vocable_value_tensor(const vocable_value *value, vocable_tensor *out);

/* An empty list, and one more at its end. The item is shared, not taken: the caller still frees it. Lists and maps may lie in each other 128 deep. */
vocable_error *vocable_list_new(vocable_value **out);
vocable_error *vocable_list_push(vocable_value *list, const vocable_value *item);

/* An empty map, and an entry, which replaces one of that name. The item is shared, not taken: the caller still frees it. */
vocable_error *vocable_map_new(vocable_value **out);
vocable_error *vocable_map_set(vocable_value *map, const char *name, const vocable_value *item);

/* One of vocable_value_kind. */
uint32_t vocable_value_get_kind(const vocable_value *value);
/* How many items a list or a map has; 0 for anything else. */
size_t vocable_value_count(const vocable_value *value);
/* The item at `index` of a list, or of a map in the order of its names; shared, to be freed by the caller. */
vocable_error *vocable_value_at(const vocable_value *value, size_t index, vocable_value **out);
/* The name at `index` of a map; free with vocable_string_free. An error if it holds a zero byte, which JSON can write and C cannot. */
vocable_error *vocable_map_name_at(const vocable_value *map, size_t index, char **out);
/* A handle's type, such as MODEL; free with vocable_string_free. */
vocable_error *vocable_handle_type(const vocable_value *handle, char **out);

/* Frees this reference. What it shares with others lives on until the last of them is freed. */
void vocable_value_free(vocable_value *value);

/* ---- Hosts ------------------------------------------------------------------------------------------------------ */

/* What a node may ask of its host is handed over with each job, as JSON:
 *   {"folders": {"checkpoints": [path…], "vae": […], "embeddings": […], "input": […], "output": […], "temp": […]},
 *    "node_id": "3", "prompt": {…workflow in API format…}, "extra_pnginfo": {"workflow": …}, "threads": 4,
 *    "linked": ["clip", …]}
 * All fields may be left out; any other is refused by name. Folders are searched in order, the first of a kind is written to. `threads`: how many the job may keep busy,
 * 0 or left out: all. `linked`: the names of inputs that are links in the graph; needed where inputs are missing (vocable_node_validate,
 * vocable_node_fingerprint), harmless elsewhere: what comes along a link is taken as it is.
 *
 * Inputs are checked as in a workflow. VOCABLE_NONE is the same as leaving an input out; defaults of optional inputs are filled in. A value for INT, FLOAT,
 * STRING, BOOLEAN or COMBO that is not named in `linked` is brought to that type, and range and choices are checked. Names that the node does
 * not know are not looked at. Of a node with `input_is_list`, each input is a list of all its values; a value that is no list is a list of one. */

/* Looks at literal inputs, a map by name, before anything runs. Linked inputs are left out of `inputs` and named in `linked` of `host_json`. */
vocable_error *vocable_node_validate(const char *node_id, const vocable_value *inputs, const char *host_json);

/* Text that changes when the node's result would although its inputs are the same, because files did. Free with vocable_string_free. */
vocable_error *vocable_node_fingerprint(const char *node_id, const vocable_value *inputs, const char *host_json, char **out);

/* ---- Jobs ------------------------------------------------------------------------------------------------------- */

/* A node at work, on a thread of its own. */
typedef struct vocable_job vocable_job;

/* Starts the node of that id on `inputs`, a map by name. The inputs are shared: the caller may free them at once. What is wrong with them is the
 * job's error; that the node is not known (VOCABLE_NOT_FOUND) or `host_json` is not as above is told at once. */
vocable_error *vocable_job_start(const char *node_id, const vocable_value *inputs, const char *host_json, vocable_job **out);

/* The parts of a model whose weights a host may hand in. */
typedef enum vocable_state_kind { VOCABLE_MODEL = 1, VOCABLE_CLIP = 2, VOCABLE_VAE = 3 } vocable_state_kind;

/* Starts to make a handle of weights that the host holds: `tensors` is a map from name to tensor, `settings` a map with what the weights
 * cannot say (nodes/docs/host_models.md, "Models of the host"). The job's one output is the handle. The tensors are no longer
 * referred to when the job is done. A setting that cannot be honoured is refused by name. */
vocable_error *vocable_import_start(uint32_t state_kind, const vocable_value *tensors, const vocable_value *settings, const char *host_json,
                                    vocable_job **out);

/* Something that happened in a job. */
typedef struct vocable_event vocable_event;

typedef enum vocable_event_kind {
    VOCABLE_EVENT_PROGRESS = 1, /* step of total; there may be a picture */
    VOCABLE_EVENT_STATUS = 2,   /* text: one line that replaces the one before */
    VOCABLE_EVENT_LOG = 3,      /* text: a line for the log; level */
    VOCABLE_EVENT_DONE = 4      /* the last event: take the outputs, which are also where the error is */
} vocable_event_kind;

/* Waits up to `timeout_ms` milliseconds for the next event: 0 comes back at once. *out is NULL if there was none.
 * A host that polls seldom loses nothing that matters: of progress, pictures and status lines only the newest waits, log lines all wait.
 * After VOCABLE_EVENT_DONE every poll answers with VOCABLE_EVENT_DONE. */
vocable_error *vocable_job_poll(vocable_job *job, uint32_t timeout_ms, vocable_event **out);

/* One of vocable_event_kind. */
uint32_t vocable_event_get_kind(const vocable_event *event);
/* Progress: how much is done, and of how much; both may start anew when the node begins another part of its work. */
uint64_t vocable_event_step(const vocable_event *event);
uint64_t vocable_event_total(const vocable_event *event);
/* Status and log: the line; empty for others. */
const char *vocable_event_text(const vocable_event *event);
/* Log: 1 debug, 2 info, 3 warning, 4 error; 0 for others. */
uint32_t vocable_event_level(const vocable_event *event);
/* Progress with a picture: three bytes, red, green, blue, for each pixel, row by row from the top; NULL if there is none,
 * and then both sides are 0. `width` and `height` may be NULL. */
const uint8_t *vocable_event_picture(const vocable_event *event, uint32_t *width, uint32_t *height);
void vocable_event_free(vocable_event *event);

/* Asks the job to stop; it does within a second, keeps what it can (the vectors learned so far) and ends with VOCABLE_CANCELLED, unless it was done before it heard of it. */
void vocable_job_cancel(vocable_job *job);

/* The results, once the job is done: a list with one value for each output of the node, and what the node shows as JSON
 * ({"images": [...], "text": [...]}; *ui_json is NULL if nothing; `ui_json` itself may be NULL). An error if the job failed, was cancelled,
 * is not done, or its outputs were taken already; the error of a job that failed comes each time. */
vocable_error *vocable_job_take_outputs(vocable_job *job, vocable_value **outputs, char **ui_json);

/* Frees the job, and cancels it if it is still at work; it then ends on its own, and this function does not wait for it. */
void vocable_job_free(vocable_job *job);

#ifdef __cplusplus
}
#endif

#endif /* VOCABLE_H */
