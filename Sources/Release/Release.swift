// Has no code: whoever builds this target builds the executables that it depends on (Package.swift).
