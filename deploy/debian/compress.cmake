# SPDX-License-Identifier: MIT
# Run by CPack on what is to be packaged: manual pages and changelogs are compressed, as Debian wants them.
file(GLOB_RECURSE files ${CPACK_TEMPORARY_DIRECTORY}/*)
list(FILTER files INCLUDE REGEX "/man/man[1-8]/[^/]*\\.[1-8]$|/changelog\\.Debian$")
foreach(file ${files})
  execute_process(COMMAND gzip -9nf ${file} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
