# SPDX-License-Identifier: MIT
# The Debian packages, by CPack: lessor (lessord, lessor, units, manual), liblessor0 and liblessor-dev.
#
#       cmake -S . -B build-package -G Ninja -DCMAKE_INSTALL_PREFIX=/usr -DLESSOR_TESTS=OFF
#       ninja -C build-package && (cd build-package && cpack -G DEB)
#
# The prefix is not CPack's to change: it stands in the units.
set(debian ${CMAKE_CURRENT_LIST_DIR})

# Who hands them out says who he is as he does to Debian's own tools, by DEBFULLNAME and DEBEMAIL, or by -DLESSOR_MAINTAINER. What
# nobody has put his name to says so by its address, which lintian calls bogus.
set(LESSOR_MAINTAINER "" CACHE STRING "Who hands the packages out: \"Name <address>\"")
if(NOT LESSOR_MAINTAINER AND NOT "$ENV{DEBEMAIL}" STREQUAL "")
  set(LESSOR_MAINTAINER "$ENV{DEBFULLNAME} <$ENV{DEBEMAIL}>")
elseif(NOT LESSOR_MAINTAINER)
  set(LESSOR_MAINTAINER "The Lessor authors <lessor@localhost.localdomain>")
endif()
configure_file(${debian}/changelog.in ${PROJECT_BINARY_DIR}/changelog.Debian @ONLY)
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME lessor)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "broker of this host's Redis connections")
set(CPACK_PACKAGE_VENDOR "The Lessor authors")
set(CPACK_PACKAGING_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL lessor liblessor0 liblessor-dev)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_PRE_BUILD_SCRIPTS ${debian}/compress.cmake)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_MAINTAINER ${LESSOR_MAINTAINER})
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR}/libclient)
set(version ${PROJECT_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE})

set(CPACK_DEBIAN_LESSOR_PACKAGE_NAME lessor)
set(CPACK_DEBIAN_LESSOR_PACKAGE_SECTION database)
set(CPACK_DEBIAN_LESSOR_DESCRIPTION "lessord owns every Redis connection of a host and leases them to worker
processes, which talk to Redis directly. There is one pool, one queue and
one circuit breaker for each database, whatever the number of processes,
and anyone may read the figures from shared memory.")
set(CPACK_DEBIAN_LESSOR_PACKAGE_DEPENDS
  "liblessor0 (= ${version}), systemd | systemd-standalone-sysusers | systemd-sysusers, init-system-helpers (>= 1.52)")
set(CPACK_DEBIAN_LESSOR_PACKAGE_SUGGESTS "redis-server, prometheus")
set(CPACK_DEBIAN_LESSOR_PACKAGE_CONTROL_EXTRA ${debian}/postinst ${debian}/prerm ${debian}/postrm)

set(CPACK_DEBIAN_LIBLESSOR0_PACKAGE_NAME liblessor0)
set(CPACK_DEBIAN_LIBLESSOR0_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_LIBLESSOR0_DESCRIPTION "Programs that use this library borrow Redis connections from lessord, the
broker in the package lessor, instead of keeping pools of their own.")
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
set(CPACK_DEBIAN_LIBLESSOR0_PACKAGE_SUGGESTS lessor)
set(CPACK_DEBIAN_LIBLESSOR0_PACKAGE_CONTROL_EXTRA ${debian}/triggers)

set(CPACK_DEBIAN_LIBLESSOR-DEV_PACKAGE_NAME liblessor-dev)
set(CPACK_DEBIAN_LIBLESSOR-DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_LIBLESSOR-DEV_DESCRIPTION "Headers, manual pages and what pkg-config and CMake need to build programs
with liblessor. lessor/status.h, for readers of the broker's statistics,
needs no library at all.")
set(CPACK_DEBIAN_LIBLESSOR-DEV_PACKAGE_DEPENDS "liblessor0 (= ${version}), libhiredis-dev")
# Each of lessor/adapters/*.h needs one.
set(CPACK_DEBIAN_LIBLESSOR-DEV_PACKAGE_SUGGESTS "libevent-dev, libev-dev, libuv1-dev")

# What Debian wants of every package.
foreach(component ${CPACK_COMPONENTS_ALL})
  install(FILES ${debian}/copyright DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${component} COMPONENT ${component})
  install(FILES ${PROJECT_BINARY_DIR}/changelog.Debian DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${component} COMPONENT ${component})
  if(EXISTS ${debian}/${component}.lintian-overrides)
    install(FILES ${debian}/${component}.lintian-overrides DESTINATION ${CMAKE_INSTALL_DATADIR}/lintian/overrides
      COMPONENT ${component} RENAME ${component})
  endif()
endforeach()
include(CPack)
