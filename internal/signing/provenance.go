package signing

import (
	"encoding/json"
	"fmt"
)

// ProvenanceType is the predicate type of SLSA provenance v1.0.
const ProvenanceType = "https://slsa.dev/provenance/v1"

// CommandType is the build type of a file made by one command of graft: its arguments are
// the external parameters, what it read the dependencies.
const CommandType = "https://github.com/graft-lora/graft/command/v1"

const builderID = "https://github.com/graft-lora/graft"

// Provenance says how files were made, completely enough to make them again.
type Provenance struct {
	Definition struct {
		BuildType    string       `json:"buildType"`
		Parameters   Parameters   `json:"externalParameters"`
		Dependencies []Dependency `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	Run struct {
		Builder struct {
			ID      string            `json:"id"`
			Version map[string]string `json:"version"`
		} `json:"builder"`
	} `json:"runDetails"`
}

// Parameters are what a person said.
type Parameters struct {
	Arguments []string `json:"arguments"` // of graft, the command first
}

// Dependency is a file or folder that was read. Its digest is that of the file, or the
// root of the folder's manifest.
type Dependency struct {
	Name   string            `json:"name"` // its path as the arguments have it
	Digest map[string]string `json:"digest"`
}

// NewProvenance describes a command of graft.
func NewProvenance(version string, arguments []string, dependencies []Dependency) *Provenance {
	p := &Provenance{}
	p.Definition.BuildType = CommandType
	p.Definition.Parameters.Arguments = arguments
	p.Definition.Dependencies = dependencies
	p.Run.Builder.ID = builderID
	p.Run.Builder.Version = map[string]string{"graft": version}
	return p
}

// Statement says it of files.
func (p *Provenance) Statement(subjects []Subject) (*Statement, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return &Statement{Type: StatementType, Subject: subjects, PredicateType: ProvenanceType, Predicate: b}, nil
}

// ProvenanceOf reads the provenance that a statement holds, of a command of graft.
func ProvenanceOf(s *Statement) (*Provenance, error) {
	if s.PredicateType != ProvenanceType {
		return nil, fmt.Errorf("a statement of %s, not of how a file was made", s.PredicateType)
	}
	p := &Provenance{}
	if err := json.Unmarshal(s.Predicate, p); err != nil {
		return nil, fmt.Errorf("the predicate: %w", err)
	}
	if p.Definition.BuildType != CommandType {
		return nil, fmt.Errorf("made by %s, not by a command of graft", p.Definition.BuildType)
	}
	if len(p.Definition.Parameters.Arguments) == 0 {
		return nil, fmt.Errorf("it names no command")
	}
	return p, nil
}

// Digest is what names a file or a folder in a statement: the SHA-256 of a file, or the
// root of a folder's manifest.
func (m *Manifest) Digest() (string, error) {
	if len(m.Resources) == 1 && m.Resources[0].Name == "." {
		return m.Resources[0].Digest, nil
	}
	return m.Root()
}
