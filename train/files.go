package train

import "github.com/graft-lora/graft/format/checkpoint"

// Names of the files in a run's folder, beside its checkpoints.
const (
	ConfigFile    = "run.yaml"                  // the settings, to run it again
	LogFile       = "log.jsonl"                 // a [LogLine] for each step and evaluation
	ReferenceFile = "reference.json"            // what the model without the adapter thinks of the examples
	TeacherFile   = "teacher.logits"            // what the teacher predicts
	RecordFile    = "run.json"                  // the [Record], written last
	CurveFile     = "loss.svg"                  // the loss over the steps
	ReportFile    = "report.html"               // the report, a page that needs no other file
	EventsFile    = "events.out.tfevents.graft" // the log as TensorBoard reads it, which looks for this beginning
	GGUFFile      = "adapter.gguf"              // the adapter, beside PEFT's two files
	MomentsFile   = "moments.safetensors"       // a [Sketch] of what its matrices' inputs look like
)

// runFiles are the files of a run but for its settings, which say that there is one, and for the
// tokenizer of one with new tokens. Another run's must not stay beside them.
var runFiles = []string{LogFile, ReferenceFile, TeacherFile, RecordFile, CurveFile, ReportFile, EventsFile, GGUFFile, MomentsFile,
	checkpoint.AdapterConfigName, checkpoint.AdapterWeightsName}
